import { randomBytes } from "node:crypto";
import { Client, type QueryResult, type QueryResultRow, escapeIdentifier } from "pg";
import { inject } from "vitest";
import { until } from "./wait.ts";

export type Side = "source" | "target";

/** A running server with the superuser `postgres` and trust: a shared one, or a `Cluster` of the test's own. */
export interface Server {
  readonly major: number;
  readonly port: number;
  url(database?: string, user?: string): string;
}

/** The major of the pair that this project tests: see vitest.config.ts. */
export function testMajor(side: Side): number {
  return Number(process.env[side === "source" ? "ERSERVER_TEST_SOURCE" : "ERSERVER_TEST_TARGET"]);
}

/**
 * The server that all tests of this run share, of the major that the project tests on that side. A test makes its own databases in it
 * (`freshDatabase`) and never stops it: for that there is `startCluster`.
 */
export function sharedCluster(side: Side): Server {
  const port = inject("ports")[side];
  return {
    major: testMajor(side),
    port,
    url: (database = "postgres", user = "postgres") =>
      `postgres://${encodeURIComponent(user)}@127.0.0.1:${port}/${encodeURIComponent(database)}`,
  };
}

export interface FreshDatabase extends AsyncDisposable {
  readonly name: string;
  readonly url: string;
  readonly server: Server;
  /** Runs SQL as the superuser on one session of its own, and returns the rows (of the last statement). */
  query<Row extends QueryResultRow = QueryResultRow>(sql: string, values?: unknown[]): Promise<Row[]>;
  /** One more session, ended with the database. */
  connect(user?: string): Promise<Client>;
}

export interface DatabaseOptions {
  /** Default: a name that nobody else has. */
  readonly name?: string;
  /** Such as LATIN1; default that of the server, UTF8. */
  readonly encoding?: string;
}

/** An empty database, dropped at the end of the scope: `await using db = await freshDatabase(sharedCluster("source"))`. */
export async function freshDatabase(server: Server, options: DatabaseOptions = {}): Promise<FreshDatabase> {
  const name = options.name ?? `test_${randomBytes(6).toString("hex")}`;
  const encoding =
    options.encoding === undefined
      ? ""
      : ` TEMPLATE template0 ENCODING '${options.encoding}' LC_COLLATE 'C' LC_CTYPE 'C'`;
  await asSuperuser(server, (client) => client.query(`CREATE DATABASE ${escapeIdentifier(name)}${encoding}`));
  const decodingMemory = process.env["ERSERVER_TEST_DECODING_MEMORY"];
  if (decodingMemory !== undefined)
    await asSuperuser(server, (client) =>
      client.query(
        `ALTER DATABASE ${escapeIdentifier(name)} SET logical_decoding_work_mem = '${decodingMemory}'`,
      ),
    );
  const url = server.url(name);
  const sessions: Client[] = [];
  const connect = async (user?: string): Promise<Client> => {
    const client = await openSession(server.url(name, user));
    sessions.push(client);
    return client;
  };
  let own: Promise<Client> | undefined;
  return {
    name,
    url,
    server,
    connect,
    query: async <Row extends QueryResultRow>(sql: string, values?: unknown[]): Promise<Row[]> => {
      own ??= connect();
      const answer: QueryResult<Row> | QueryResult<Row>[] = await (await own).query<Row>(sql, values);
      return Array.isArray(answer) ? (answer.at(-1)?.rows ?? []) : answer.rows;
    },
    [Symbol.asyncDispose]: async () => {
      await Promise.all(sessions.map((client) => client.end().catch(() => undefined)));
      await asSuperuser(server, (client) => dropDatabase(client, name));
    },
  };
}

/** A session whose loss is noticed by the next query only, as a test that stops servers wants it. */
export async function openSession(url: string): Promise<Client> {
  // Taken apart here: the parser of `pg` leaves %26, %2F and their like in a database name as they are.
  const { hostname, port, username, password, pathname, searchParams } = new URL(url);
  const client = new Client({
    host: hostname,
    port: Number(port),
    user: decodeURIComponent(username),
    ...(password === "" ? {} : { password: decodeURIComponent(password) }),
    database: decodeURIComponent(pathname.slice(1)),
    application_name: "erserver test",
    // A test may give its databases timeouts, for erserver to bear.
    options: "-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0",
    ...Object.fromEntries(searchParams),
  });
  client.on("error", () => undefined);
  await client.connect();
  return client;
}

async function asSuperuser(server: Server, work: (client: Client) => Promise<unknown>): Promise<void> {
  const client = await openSession(server.url());
  try {
    await work(client);
  } finally {
    await client.end();
  }
}

/** With its backends, walsenders and slots; a slot that is left would hold WAL, and keeps its database from being dropped. */
async function dropDatabase(client: Client, name: string): Promise<void> {
  const drop = async (): Promise<boolean> => {
    await client.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", [name]);
    await client.query(
      "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = $1 AND NOT active",
      [name],
    );
    await client.query(`DROP DATABASE IF EXISTS ${escapeIdentifier(name)}`);
    return true;
  };
  await until(drop, { what: `database ${name} to be dropped` });
}
