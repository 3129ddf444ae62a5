import type { Conninfo } from "../config/conninfo.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { connectControl, type ControlSession } from "../postgres/connect.ts";
import { readServerFacts } from "../postgres/server-facts.ts";
import { quoteIdent } from "../quote/ident.ts";
import { type Database, inDatabase } from "./database.ts";
import { masterAddTable, masterInit } from "./master.ts";
import { slaveAddTable, slaveInit } from "./slave.ts";

/** Three kinds of key, as the old test had them: a number, an OID, a text. */
const TABLES = `
  create table test (k serial primary key, i text);
  create table testoid (k oid primary key, i text);
  create table teststr (i text primary key, k int);`;
const ROWS = `
  insert into test (i) select 'row ' || n from generate_series(1, 100) n;
  insert into testoid select n, 'row ' || n from generate_series(1, 100) n;
  insert into teststr select 'row ' || n, n from generate_series(1, 100) n;`;
const NAMES = ["test", "testoid", "teststr"] as const;

/** Which of the databases there are. */
export async function existingTestDatabases(databases: readonly Database[]): Promise<string[]> {
  const found: string[] = [];
  for (const database of databases) {
    const { database: name } = database.conninfo;
    await inServer(database, async (server) => {
      const rows = await server.query("select 1 as one from pg_catalog.pg_database where datname = $1", [
        name,
      ]);
      if (rows.length > 0) found.push(name);
    });
  }
  return found;
}

/** Drops both databases, if they are there, and makes them anew: three tables with 100 rows each on the master, the same tables on the slave, ready for Replicate. */
export async function initTestDatabases(master: Database, slave: Database): Promise<void> {
  refuseSame(master.conninfo, slave.conninfo);
  for (const database of [master, slave]) {
    await inServer(database, async (server) => {
      const name = quoteIdent(database.conninfo.database);
      const { version } = await readServerFacts(server);
      await server.query(`drop database if exists ${name}${version >= 130_000 ? " with (force)" : ""}`);
      await server.query(`create database ${name}`);
    });
  }
  await inDatabase(master, "source", (session) => session.query(TABLES + ROWS));
  await inDatabase(slave, "target", (session) => session.query(TABLES));
  await masterInit(master);
  await slaveInit(slave);
  for (const table of NAMES) {
    await masterAddTable(master, { table });
    await slaveAddTable(slave, { table });
  }
}

function refuseSame(master: Conninfo, slave: Conninfo): void {
  const [one] = master.hosts;
  const [other] = slave.hosts;
  if (master.database !== slave.database || one?.host !== other?.host || one?.port !== other?.port) return;
  throw new ErserverError("ERS-106", `master and slave are one database: ${master.database}`, {
    subject: master.database,
    remedy: "Give them different names, or different servers.",
  });
}

/** In the database that every server has for such work. */
async function inServer(
  { conninfo, timeoutMs, signal }: Database,
  work: (session: ControlSession) => Promise<void>,
): Promise<void> {
  const session = await connectControl(
    { ...conninfo, database: "postgres" },
    { applicationName: "erserver rserv", timeoutMs, ...(signal === undefined ? {} : { signal }) },
  );
  try {
    await work(session);
  } finally {
    await session.end();
  }
}

/** A row on the master. */
export async function updateTest(master: Database, text: string): Promise<void> {
  await inDatabase(master, "source", (session) => session.query("insert into test (i) values ($1)", [text]));
}

/** Whether the slave has a row with the text. */
export async function showTest(slave: Database, text: string): Promise<boolean> {
  return inDatabase(slave, "target", async (session) => {
    const rows = await session.query("select 1 as one from test where i = $1 limit 1", [text]);
    return rows.length > 0;
  });
}
