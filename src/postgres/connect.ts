import type { Duplex } from "node:stream";
import pg from "pg";
import { type Conninfo, describeConninfo, type Host, passwordFor } from "../config/conninfo.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { onAbort } from "../runtime/abort.ts";
import { WireConnection } from "../wire/connection.ts";
import { demandChannelBinding, type PgConnection } from "./channel-binding.ts";
import { connectDenied, connectFailure } from "./failures.ts";
import { type SslAttempt, sslAttempts, tlsOptions, triesNextSsl } from "./tls.ts";

/**
 * Settings of every session of ours: both sides print and read values the same way, whatever the servers and
 * databases prefer. Money is an int8 inside, so `lc_monetary = C` on both sides moves it unchanged.
 * `IntervalStyle = postgres` and seventeen digits as native logical replication sets them (libpqrcv_connect).
 */
const VALUE_SETTINGS: Readonly<Record<string, string>> = {
  datestyle: "ISO",
  intervalstyle: "postgres",
  timezone: "UTC",
  extra_float_digits: "3",
  lc_monetary: "C",
  bytea_output: "hex",
  xmloption: "content",
  search_path: "",
  array_nulls: "on",
  quote_all_identifiers: "off",
  standard_conforming_strings: "on",
  // From 18 on a missing publication is told by a warning alone.
  client_min_messages: "warning",
  // A database or role may be read-only by default; and a stricter isolation would make our own commits fail.
  default_transaction_read_only: "off",
  default_transaction_isolation: "read committed",
  // A policy that hides rows from the role is an error, not a smaller copy.
  row_security: "off",
  statement_timeout: "0",
  lock_timeout: "0",
  idle_in_transaction_session_timeout: "0",
};

/**
 * Came with 11, 14 and 17, so the start-up packet cannot name them: an older server would refuse the connection. Compiling a query
 * takes longer than any of ours on the catalogues runs (0.35 s instead of 2 ms, by an estimate of its cost that is far off).
 */
const DISABLE_LATER_SETTINGS = `select pg_catalog.set_config(name, 'off', false) from pg_catalog.pg_settings where name = 'jit' and setting <> 'off'
  union all select pg_catalog.set_config(name, '0', false) from pg_catalog.pg_settings
    where name in ('idle_session_timeout', 'transaction_timeout') and setting <> '0'`;

/** How long `end` waits for a server that may not hear us. */
const END_TIMEOUT_MS = 2_000;

export interface SessionOptions {
  /** Shown in pg_stat_activity. */
  readonly applicationName: string;
  /** A WAL sender that also answers SQL (`replication=database`). */
  readonly replication?: boolean;
  /** Run-time settings beyond those of every session, sent with the start-up packet. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Milliseconds to connect, and for a control query to be answered. */
  readonly timeoutMs: number;
  /** Gives up connecting. */
  readonly signal?: AbortSignal;
}

/** An ordinary session for catalogue reads and control statements. */
export class ControlSession implements AsyncDisposable {
  readonly #client: pg.Client;
  readonly #describe: string;
  #failure: Error | undefined;
  /** Resolves once, with the reason, when the connection is gone. */
  readonly closed: Promise<Error>;

  constructor(client: pg.Client, describe: string) {
    this.#client = client;
    this.#describe = describe;
    this.closed = new Promise((resolve) => {
      client.on("error", (error) => {
        this.#failure ??= error;
        resolve(error);
      });
      client.on("end", () => resolve(this.#failure ?? new Error("connection closed")));
    });
  }

  /**
   * Rows as objects; every value as text, the way the server prints it. Failures come as ErserverError where known. Queries that are asked
   * before others are answered travel together, and run one after the other.
   */
  async query<Row extends object = Record<string, string | null>>(
    sql: string,
    parameters: readonly unknown[] = [],
  ): Promise<Row[]> {
    try {
      return (await this.#client.query<Row>(sql, parameters as unknown[])).rows;
    } catch (error) {
      // A late answer must not be taken for the next query's: a session that timed out is of no further use.
      if (error instanceof Error && error.message === "Query read timeout") this.destroy();
      throw connectFailure(error, this.#describe) ?? error;
    }
  }

  /** Says goodbye and waits, not for long, until the connection is closed. */
  async end(): Promise<void> {
    const impatient = setTimeout(() => this.destroy(), END_TIMEOUT_MS);
    await this.#client.end().catch(() => {});
    clearTimeout(impatient);
  }

  destroy(): void {
    socketOf(this.#client).destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
  }
}

/** The server gives up a statement, such as one that waits for a lock, before we stop to wait for it: a backend that nobody hears would stay. */
const STATEMENT_SHARE = 0.9;

/** Opens a control session. Throws ErserverError ERS-2xx, which names `role@host:port/database`. */
export async function connectControl(conninfo: Conninfo, options: SessionOptions): Promise<ControlSession> {
  const statementTimeout = String(Math.round(options.timeoutMs * STATEMENT_SHARE));
  const settings = { statement_timeout: statementTimeout, ...options.settings };
  const client = await connect(conninfo, { ...options, settings, pipeline: true });
  return new ControlSession(client, describeConninfo(conninfo));
}

/** Opens a data-plane connection that nobody watches: see `connectWatched`. `pg` connects and authenticates, then its socket is ours. */
export async function connectWire(conninfo: Conninfo, options: SessionOptions): Promise<WireConnection> {
  const client = await connect(conninfo, { ...options, pipeline: false });
  const socket = socketOf(client);
  // The contract with pg 8.23.1, pinned and tested: after `connect` the socket is at ReadyForQuery, and these
  // listeners are all that pg has on it. Those of Node itself that go with them, on a TLS socket, only clean up what closing it
  // cleans up anyway.
  for (const event of ["data", "error", "close", "end"]) socket.removeAllListeners(event);
  // From BackendKeyData, which @types/pg does not show.
  const { processID } = client as unknown as { processID: number };
  return new WireConnection(socket, describeConninfo(conninfo), processID);
}

function connectionOf(client: pg.Client): PgConnection {
  return (client as unknown as { connection: PgConnection }).connection;
}

function socketOf(client: pg.Client): Duplex {
  return connectionOf(client).stream;
}

interface ClientOptions extends SessionOptions {
  /** Queries are sent before those in front of them are answered. */
  readonly pipeline: boolean;
}

async function connect(conninfo: Conninfo, options: ClientOptions): Promise<pg.Client> {
  let failure: unknown;
  let unusedPassfile: string | undefined;
  const warn = (message: string): void => {
    unusedPassfile = message;
  };
  for (const { host, attributes } of attempts(conninfo)) {
    for (const ssl of sslAttempts(conninfo, host)) {
      let client: pg.Client | undefined;
      try {
        client = await connectOnce(conninfo, { host, ssl, warn }, options);
        if (await hasSessionAttributes(client, attributes)) return client;
        failure ??= new Error(`no host is ${conninfo.targetSessionAttrs}`);
        await client.end().catch(() => {});
        break;
      } catch (error) {
        failure = error;
        await client?.end().catch(() => {});
        if (!triesNextSsl(conninfo, ssl, error)) break;
      }
    }
  }
  const where = describeConninfo(conninfo);
  const known = connectFailure(failure, where);
  if (known?.code === "ERS-202" && unusedPassfile !== undefined) {
    const { subject = where, remedy, cause } = known;
    throw new ErserverError("ERS-202", `${known.message}; ${unusedPassfile}`, { subject, remedy, cause });
  }
  // Of a WAL sender it means the REPLICATION attribute, and its caller knows.
  if (known !== undefined || options.replication === true) throw known ?? failure;
  throw connectDenied(failure, where, conninfo);
}

interface Attempt {
  readonly host: Host;
  readonly attributes: Exclude<Conninfo["targetSessionAttrs"], "prefer-standby">;
}

/** `prefer-standby` asks every host for a standby first and then takes any, as libpq does. */
function attempts({ hosts, targetSessionAttrs }: Conninfo): readonly Attempt[] {
  const rounds =
    targetSessionAttrs === "prefer-standby" ? (["standby", "any"] as const) : [targetSessionAttrs];
  return rounds.flatMap((attributes) => hosts.map((host) => ({ host, attributes })));
}

interface Way {
  readonly host: Host;
  readonly ssl: SslAttempt;
  /** Told why a password file is not used. */
  readonly warn: (message: string) => void;
}

async function connectOnce(
  conninfo: Conninfo,
  { host, ssl, warn }: Way,
  options: ClientOptions,
): Promise<pg.Client> {
  const password = await passwordFor(conninfo, host, warn);
  const overTls = ssl === "tls";
  const config: pg.ClientConfig & { replication?: string; pipeline: boolean } = {
    host: host.hostaddr ?? host.host,
    port: host.port,
    user: conninfo.user,
    database: conninfo.database,
    // An empty function instead of undefined: pg would otherwise look into PGPASSWORD and .pgpass by itself.
    password: () => password?.reveal() ?? "",
    ssl: overTls && tlsOptions(conninfo, host),
    // Never undefined: pg would otherwise look into PGSSLNEGOTIATION.
    sslnegotiation: overTls ? conninfo.sslnegotiation : "postgres",
    enableChannelBinding: overTls && conninfo.channelBinding !== "disable",
    application_name: options.applicationName,
    options: startupOptions(conninfo, options),
    connectionTimeoutMillis: conninfo.connectTimeout ? conninfo.connectTimeout * 1000 : options.timeoutMs,
    query_timeout: options.timeoutMs,
    keepAlive: true,
    keepAliveInitialDelayMillis: 5_000,
    types: TEXT_ONLY,
    pipeline: options.pipeline,
    ...(options.replication === true ? { replication: "database" } : {}),
  };
  const client = new pg.Client(config);
  client.on("error", () => {});
  const assertBound =
    conninfo.channelBinding === "require"
      ? demandChannelBinding(connectionOf(client), overTls)
      : () => undefined;
  const connecting = client.connect();
  using _giveUp = onAbort(options.signal, () => socketOf(client).destroy());
  try {
    await connecting;
    assertBound();
    const disabled = client.query(DISABLE_LATER_SETTINGS);
    // A far server takes a while to answer: if others may follow at once, nobody waits for it.
    if (options.pipeline) disabled.catch(() => {});
    else await disabled;
    return client;
  } catch (error) {
    // pg keeps the socket open when it is the one that gives up.
    socketOf(client).destroy();
    throw error;
  }
}

/** Every value stays the text that the server prints. */
const TEXT_ONLY: pg.CustomTypesConfig = { getTypeParser: () => (value: string) => value };

/** The `options` start-up parameter: `-c name=value`, spaces and backslashes escaped by a backslash. */
function startupOptions(conninfo: Conninfo, options: SessionOptions): string {
  // A WAL sender takes every setting but search_path from here as any session does.
  const settings = { ...VALUE_SETTINGS, ...options.settings };
  const pairs = Object.entries(settings).map(
    ([name, value]) => `-c ${name}=${value.replace(/[\\ ]/g, "\\$&")}`,
  );
  return [conninfo.options ?? "", ...pairs].filter((part) => part !== "").join(" ");
}

async function hasSessionAttributes(client: pg.Client, wanted: Attempt["attributes"]): Promise<boolean> {
  if (wanted === "any") return true;
  const { rows } = await client.query<{ standby: string; read_only: string }>(
    "select pg_catalog.pg_is_in_recovery()::text as standby, pg_catalog.current_setting('transaction_read_only') as read_only",
  );
  const standby = rows[0]?.standby === "true";
  const readOnly = standby || rows[0]?.read_only === "on";
  switch (wanted) {
    case "read-write":
      return !readOnly;
    case "read-only":
      return readOnly;
    case "primary":
      return !standby;
    case "standby":
      return standby;
  }
}
