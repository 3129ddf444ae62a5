import { ErserverError } from "../errors/erserver-error.ts";
import type { ControlSession } from "./connect.ts";
import { majorOf, NEWEST_TESTED_MAJOR } from "./server-version.ts";

/** What a pipeline must know of a server before it touches anything. */
export interface ServerFacts {
  readonly version: number;
  readonly versionText: string;
  readonly database: string;
  readonly user: string;
  readonly superuser: boolean;
  readonly inRecovery: boolean;
}

export interface SourceFacts extends ServerFacts {
  /** pg_control's system_identifier: the same for the life of a cluster and its standbys. */
  readonly systemIdentifier: string;
  readonly databaseOid: number;
  readonly walLevel: string;
  readonly mayReplicate: boolean;
}

const SERVER_FACTS = `pg_catalog.current_setting('server_version_num') as version, pg_catalog.current_setting('server_version') as version_text,
  pg_catalog.current_database() as database, current_user::text as "user",
  (select rolsuper::text from pg_catalog.pg_roles where rolname = current_user) as superuser,
  pg_catalog.pg_is_in_recovery()::text as recovery`;

export async function readServerFacts(session: ControlSession): Promise<ServerFacts> {
  const [row] = await session.query(`select ${SERVER_FACTS}`);
  return serverFacts(row);
}

function serverFacts(row: Record<string, string | null> | undefined): ServerFacts {
  return {
    version: Number(row?.["version"]),
    versionText: row?.["version_text"] ?? "",
    database: row?.["database"] ?? "",
    user: row?.["user"] ?? "",
    superuser: row?.["superuser"] === "true",
    inRecovery: row?.["recovery"] === "true",
  };
}

export async function readSourceFacts(session: ControlSession): Promise<SourceFacts> {
  const [row] = await session.query(
    `select ${SERVER_FACTS}, (select system_identifier::text from pg_catalog.pg_control_system()) as system,
       (select oid::text from pg_catalog.pg_database where datname = pg_catalog.current_database()) as database_oid,
       pg_catalog.current_setting('wal_level') as wal_level,
       (select (rolreplication or rolsuper)::text from pg_catalog.pg_roles where rolname = current_user) as replication`,
  );
  return {
    ...serverFacts(row),
    systemIdentifier: row?.["system"] ?? "",
    databaseOid: Number(row?.["database_oid"]),
    walLevel: row?.["wal_level"] ?? "",
    mayReplicate: row?.["replication"] === "true",
  };
}

/** Throws what forbids to work with this server at all: too old, or a standby. */
export function requireUsableServer(facts: ServerFacts, where: string, oldestMajor: number): void {
  if (majorOf(facts.version) < oldestMajor) {
    throw new ErserverError(
      "ERS-305",
      `${where}: PostgreSQL ${facts.versionText} is older than ${oldestMajor}`,
      {
        subject: where,
        remedy: `Use PostgreSQL ${oldestMajor} or newer there.`,
      },
    );
  }
  if (facts.inRecovery) {
    throw new ErserverError("ERS-307", `${where}: the server is a standby`, {
      subject: where,
      remedy:
        "Name the primary (several hosts with target_session_attrs=primary find it by themselves), or promote this one; then it goes on by itself.",
    });
  }
}

/** Throws ERS-301 where changes cannot be had from the WAL. */
export function requireWalLevel({ walLevel }: SourceFacts, where: string): void {
  if (walLevel === "logical") return;
  throw new ErserverError("ERS-301", `${where}: wal_level is ${walLevel}, and must be logical`, {
    subject: where,
    remedy:
      "On the source: ALTER SYSTEM SET wal_level = logical; then restart the server. Or `capture: trigger` in the configuration, which needs neither.",
  });
}

export function isUntestedMajor(version: number): boolean {
  return majorOf(version) > NEWEST_TESTED_MAJOR;
}
