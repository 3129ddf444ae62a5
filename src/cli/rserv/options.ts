import { type Command, InvalidArgumentError, Option } from "commander";
import { type Conninfo, describeConninfo, parseConninfo } from "../../config/conninfo.ts";
import { splitConninfo } from "../../config/conninfo-text.ts";
import { systemEnvironment } from "../../config/environment.ts";
import { Secret } from "../../config/secrets.ts";
import { ErserverError } from "../../errors/erserver-error.ts";
import { createLogger, type Logger } from "../../observability/log.ts";
import { connectControl } from "../../postgres/connect.ts";
import { type Database, sessionOptions } from "../../rserv/database.ts";
import type { Terminal } from "../terminal.ts";

/** Of every one of the old commands. */
export interface CommonOptions {
  readonly host?: string;
  readonly port?: string;
  readonly user?: string;
  readonly verbose?: boolean;
  readonly noverbose?: boolean;
  readonly quiet?: boolean;
  readonly debug?: boolean;
}

export type Role = "master" | "slave";

/** Of commands about both databases: what is not given for one of them is as for both. */
export type PairOptions = CommonOptions & {
  readonly [name in `${Role}${"host" | "port" | "user"}`]?: string;
};

const TIMEOUT_MS = 30_000;

/** Adds `--host`, `--port` and `--user`, how much is said, and what is refused. */
export function withCommon(command: Command, roles: readonly Role[]): Command {
  const both = roles.length > 1 ? " of both databases" : "";
  command
    .option("--host <host>", `server${both}: a name, an address, or the folder of a socket`)
    .option("--port <port>", `port${both}`, port)
    .option("--user <user>", `role${both}`);
  if (roles.length > 1) {
    for (const role of roles)
      command
        .option(`--${role}host <host>`, `server of the ${role}`)
        .option(`--${role}port <port>`, `port of the ${role}`, port)
        .option(`--${role}user <user>`, `role on the ${role}`);
  }
  // Whoever can list processes can read it.
  for (const name of ["password", "masterpassword", "slavepassword"])
    command.addOption(new Option(`--${name} <refused>`).hideHelp().argParser(refusePassword));
  return command
    .option("--verbose", "say more")
    .option("--quiet", "say nothing when all went well")
    .addOption(new Option("--noverbose", "say no more than needed").hideHelp())
    .addOption(new Option("--debug", "say everything").hideHelp());
}

/** In what looks like a URL or a `keyword=value` string, also where it is none. */
const HOLDS_PASSWORD = /^\w+:\/\/[^/?@]*:[^/?]*@|(?:^|[\s?&'])(?:ssl)?password\s*=/;

function isPassword([keyword]: readonly [string, string]): boolean {
  return keyword === "password" || keyword === "sslpassword";
}

function refusePassword(): never {
  // Commander's own error would repeat it.
  throw new ErserverError(
    "ERS-106",
    "a password is not taken from the command line, where others can read it",
    {
      remedy: "Put it into ~/.pgpass or PGPASSWORD, or leave it out and type it when asked.",
    },
  );
}

/** What a command has done, unless it is to be quiet. */
export function say(terminal: Terminal, { quiet }: CommonOptions, text: string): void {
  if (quiet !== true) terminal.write(`${text}\n`);
}

export function logOf({ verbose, debug }: CommonOptions): Logger {
  // What a registration makes less of, or a role, was said when it was made.
  const level = debug === true ? "debug" : verbose === true ? "info" : "error";
  return createLogger({ level });
}

/** The database of this name, as its options say where; a URL or `keyword=value` string says it all by itself. */
export async function databaseOf(
  name: string,
  options: PairOptions,
  terminal: Terminal,
  role?: Role,
): Promise<Database> {
  const of = (what: "host" | "port" | "user"): string | undefined =>
    (role === undefined ? undefined : options[`${role}${what}`]) ?? options[what];
  const given = { host: of("host"), port: of("port"), user: of("user") };
  const settings = Object.fromEntries(
    Object.entries(given).filter((entry): entry is [string, string] => entry[1] !== undefined),
  );
  // libpq would take the one that is called like the role.
  if (name === "")
    throw new ErserverError("ERS-106", "the name of the database is empty", {
      remedy: "Name the database; a shell variable in its place is not set.",
    });
  const isWhole = /^postgres(?:ql)?:\/\/|=/.test(name);
  if (HOLDS_PASSWORD.test(name) || (isWhole && splitConninfo(name).some(isPassword))) refusePassword();
  if (isWhole && Object.keys(settings).length > 0)
    throw new ErserverError(
      "ERS-106",
      "a connection string and --host, --port or --user exclude each other",
      {
        remedy: "Put host, port and user into the connection string, or give the database's name alone.",
      },
    );
  const conninfo = parseConninfo(isWhole ? name : { ...settings, dbname: name }, systemEnvironment());
  const { interrupted: signal } = terminal;
  const database = { conninfo, timeoutMs: TIMEOUT_MS, signal };
  return { ...database, conninfo: await withPassword(database, terminal) };
}

/** Asks for a password where the server wants one and none is to be found. */
async function withPassword(database: Database, terminal: Terminal): Promise<Conninfo> {
  const { conninfo } = database;
  // Nobody to ask: the command itself says what is wrong.
  if (conninfo.password !== undefined || !process.stdin.isTTY) return conninfo;
  try {
    await (await connectControl(conninfo, sessionOptions(database))).end();
    return conninfo;
  } catch (error) {
    if (!(error instanceof ErserverError) || error.code !== "ERS-202") return conninfo;
    const answer = await terminal.askSecret(`Password for ${describeConninfo(conninfo)}: `);
    return answer === undefined ? conninfo : { ...conninfo, password: new Secret(answer) };
  }
}

function port(value: string): string {
  const number = Number(value);
  if (!/^\d{1,5}$/.test(value) || number < 1 || number > 65_535)
    throw new InvalidArgumentError("A number from 1 to 65535 is needed.");
  return value;
}

/** A sync's number. */
export function syncId(value: string): bigint {
  if (!/^\d{1,18}$/.test(value))
    throw new InvalidArgumentError("The number of a sync is needed, such as 17.");
  return BigInt(value);
}
