import { readdir, readFile } from "node:fs/promises";
import { ErserverError } from "../errors/erserver-error.ts";
import { SQLSTATE } from "../errors/sqlstate.ts";
import { oneAtATime } from "../postgres/advisory-lock.ts";
import type { ControlSession } from "../postgres/connect.ts";
import { sqlStateOf } from "../postgres/failures.ts";

/** Beside `src` and `dist` alike. */
const MIGRATIONS = new URL("../../sql/", import.meta.url);

/** A database may be both, for different pipelines: each has its own files. */
type Side = "source" | "target";

/**
 * Brings what a side has in schema `erserver` up to this version: numbered files, each once, all in one
 * transaction. Returns the names of those applied. A schema made by a newer version is refused.
 */
export async function migrate(session: ControlSession, where: string, side: Side): Promise<string[]> {
  const files = await migrationFiles(side);
  try {
    return await oneAtATime(session, async () => {
      const done = await appliedMigrations(session);
      refuseUnknown(done, files, where, side);
      const missing = files.filter((name) => !done.includes(name));
      for (const name of missing) {
        await session.query(
          await readFile(new URL(side === "source" ? name : `target/${name}`, MIGRATIONS), "utf8"),
        );
        await session.query("insert into erserver.migration (name) values ($1)", [name]);
      }
      return missing;
    });
  } catch (error) {
    if (sqlStateOf(error) === SQLSTATE.insufficientPrivilege)
      throw await mayNotMigrate(session, where, side, error as Error);
    throw error;
  }
}

/** Throws, as `migrate` would, where the schema is not there and the role may not make it. Changes nothing. */
export async function requireMayMigrate(session: ControlSession, where: string, side: Side): Promise<void> {
  const [row] = await session.query(
    `select pg_catalog.current_database() as name, (pg_catalog.to_regnamespace('erserver') is not null
       or pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'))::text as may`,
  );
  if (row?.["may"] === "true") return;
  throw await mayNotMigrate(
    session,
    where,
    side,
    new Error(`permission denied for database ${row?.["name"]}`),
  );
}

async function mayNotMigrate(
  session: ControlSession,
  where: string,
  side: Side,
  cause: Error,
): Promise<ErserverError> {
  const [schema] = await session.query(
    "select pg_catalog.pg_get_userbyid(nspowner)::text as owner from pg_catalog.pg_namespace where nspname = 'erserver'",
  );
  if (schema !== undefined)
    return new ErserverError("ERS-304", `${where}: ${cause.message}`, {
      subject: where,
      remedy: `Connect as the role that made schema erserver there, which belongs to it: ${schema["owner"]}.`,
      cause,
    });
  return new ErserverError("ERS-304", `${where}: schema erserver cannot be made: ${cause.message}`, {
    subject: where,
    remedy: `Run on the ${side} as its owner: ${await grantCreate(session)};`,
    cause,
  });
}

/** Those of a target go by their names alone, those of a source by `source/` and the name. */
async function migrationFiles(side: Side): Promise<string[]> {
  const names = (await readdir(new URL(`${side}/`, MIGRATIONS))).filter((name) =>
    /^\d{4}_.*\.sql$/.test(name),
  );
  return names.toSorted().map((name) => (side === "source" ? `source/${name}` : name));
}

function refuseUnknown(done: readonly string[], files: readonly string[], where: string, side: Side): void {
  const own = done.filter((name) => name.startsWith("source/") === (side === "source"));
  const unknown = own.filter((name) => !files.includes(name));
  if (unknown.length === 0) return;
  throw new ErserverError(
    "ERS-408",
    `${where}: schema erserver was made by a newer version (it has ${unknown.join(", ")})`,
    {
      subject: where,
      remedy: "Upgrade erserver on this machine to the version that is used elsewhere.",
    },
  );
}

async function grantCreate(session: ControlSession): Promise<string> {
  const [row] = await session.query(
    "select pg_catalog.format('GRANT CREATE ON DATABASE %I TO %I', pg_catalog.current_database(), current_user) as sql",
  );
  return row?.["sql"] ?? "";
}

async function appliedMigrations(session: ControlSession): Promise<string[]> {
  // CREATE SCHEMA IF NOT EXISTS asks for the privilege even when the schema is there.
  const [schema] = await session.query("select pg_catalog.to_regnamespace('erserver')::text as name");
  if (schema?.["name"] == null) await session.query("create schema erserver");
  const [table] = await session.query("select pg_catalog.to_regclass('erserver.migration')::text as name");
  if (table?.["name"] == null) {
    await session.query(
      "create table erserver.migration (name text primary key, applied_at timestamptz not null default now())",
    );
  }
  return readMigrations(session);
}

async function readMigrations(session: ControlSession): Promise<string[]> {
  const rows = await session.query<{ name: string }>("select name from erserver.migration order by name");
  return rows.map((row) => row.name);
}

/** As `schemaExists`, for whoever goes on to use the schema: one that a newer version made is refused (ERS-408). */
export async function usableSchemaExists(session: ControlSession, where: string): Promise<boolean> {
  if (!(await schemaExists(session))) return false;
  refuseUnknown(await readMigrations(session), await migrationFiles("target"), where, "target");
  return true;
}

export async function schemaExists(session: ControlSession): Promise<boolean> {
  const [row] = await session.query("select pg_catalog.to_regclass('erserver.progress')::text as name");
  return row?.["name"] != null;
}
