import { forgetIfRestored } from "../capture/trigger/captured-tables.ts";
import { captureExists } from "../capture/trigger/consumers.ts";
import { type Conninfo, describeConninfo } from "../config/conninfo.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { SQLSTATE } from "../errors/sqlstate.ts";
import { connectDatabase, type Side } from "../pipeline/sides.ts";
import { connectControl, type ControlSession, type SessionOptions } from "../postgres/connect.ts";
import { sqlStateOf } from "../postgres/failures.ts";
import { quoteIdent } from "../quote/ident.ts";
import { migrate, schemaExists } from "../store/migrate.ts";

/** A master or a slave, as a command is told of it. */
export interface Database {
  readonly conninfo: Conninfo;
  /** Milliseconds of silence after which a server counts as lost. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

export function sessionOptions({ timeoutMs, signal }: Omit<Database, "conninfo">): SessionOptions {
  return { applicationName: "erserver rserv", timeoutMs, signal };
}

/** Does something in a session of its own. */
export async function inDatabase<T>(
  database: Database,
  side: Side,
  work: (session: ControlSession) => Promise<T>,
): Promise<T> {
  await using session = await connectDatabase(database.conninfo, side, sessionOptions(database));
  return await work(session);
}

/** In the database that every server has for work on others. */
export async function inServer<T>(
  database: Database,
  work: (session: ControlSession) => Promise<T>,
): Promise<T> {
  await using session = await connectControl(
    { ...database.conninfo, database: "postgres" },
    sessionOptions(database),
  );
  return await work(session);
}

export async function databaseExists(database: Database): Promise<boolean> {
  const { database: name } = database.conninfo;
  const found = await inServer(database, (server) =>
    server.query("select 1 as one from pg_catalog.pg_database where datname = $1", [name]),
  );
  return found.length > 0;
}

export async function createDatabase(database: Database): Promise<void> {
  const name = quoteIdent(database.conninfo.database);
  try {
    await inServer(database, (server) => server.query(`create database ${name}`));
  } catch (error) {
    if (sqlStateOf(error) !== SQLSTATE.insufficientPrivilege) throw error;
    const { user } = database.conninfo;
    throw new ErserverError(
      "ERS-304",
      `${describeConninfo(database.conninfo)}: role ${quoteIdent(user)} may not create databases`,
      {
        subject: database.conninfo.database,
        remedy: `Run there as superuser: CREATE DATABASE ${name} OWNER ${quoteIdent(user)}; or: ALTER ROLE ${quoteIdent(user)} CREATEDB;`,
        cause: error,
      },
    );
  }
}

/**
 * Throws ERS-407 unless MasterInit was run, and says so when it is a slave that is asked. What a dump has brought along is forgotten here,
 * before anybody relies on it: a pipeline would do so later, and take what was registered since with it.
 */
export async function requireMaster(session: ControlSession, { conninfo }: Database): Promise<void> {
  if (await captureExists(session)) {
    await migrate(session, describeConninfo(conninfo), "source");
    return forgetIfRestored(session);
  }
  throw notInitialized(conninfo, "MasterInit", (await slaveExists(session)) ? "SlaveInit" : undefined);
}

/** Whether it is the other of the two as well: a master that gets its rows from another one, or a slip of the pen. */
export function isAlso(role: "master" | "slave", database: Database): Promise<boolean> {
  return role === "master"
    ? inDatabase(database, "source", captureExists)
    : inDatabase(database, "target", slaveExists);
}

/** Throws ERS-407 unless SlaveInit was run, and says so when it is a master that is asked. */
export async function requireSlave(session: ControlSession, { conninfo }: Database): Promise<void> {
  if (await slaveExists(session)) return;
  throw notInitialized(conninfo, "SlaveInit", (await captureExists(session)) ? "MasterInit" : undefined);
}

/** A target that an older version has made, or `erserver run`, has no register of tables yet. */
async function slaveExists(session: ControlSession): Promise<boolean> {
  if (!(await schemaExists(session))) return false;
  const [there] = await session.query("select pg_catalog.to_regclass('erserver.slave_table')::text as name");
  return there?.["name"] != null;
}

function notInitialized(
  conninfo: Conninfo,
  wanted: "MasterInit" | "SlaveInit",
  found: string | undefined,
): ErserverError {
  const where = describeConninfo(conninfo);
  const role = { MasterInit: "master", SlaveInit: "slave" };
  const other = wanted === "MasterInit" ? "slave" : "master";
  return new ErserverError(
    "ERS-407",
    found === undefined
      ? `${where} is no ${role[wanted]} yet`
      : `${where} is no ${role[wanted]}: ${found} was run there, it is a ${other}`,
    {
      subject: where,
      remedy:
        found === undefined
          ? `Run: ${wanted} ${conninfo.database}`
          : `Name the ${role[wanted]}, not the ${other}; or, if it is to be both: ${wanted} ${conninfo.database}`,
    },
  );
}
