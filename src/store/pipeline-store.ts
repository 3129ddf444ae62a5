import { formatLsn, type Lsn, parseLsn, ZERO_LSN } from "../change/lsn.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import type { CatalogTable } from "../postgres/catalog.ts";
import type { ControlSession } from "../postgres/connect.ts";
import type { CaptureKind } from "../postgres/selection.ts";
import type { SourceFacts } from "../postgres/server-facts.ts";

/** The words that every screen, log and table uses. */
export type PipelineState =
  | "copying"
  | "catching-up"
  | "catching-up (bulk)"
  | "streaming"
  | "offline"
  | "paused"
  | "stopped";

/** How an error is kept on the target and shown by `status`. */
export interface StoredError {
  readonly code: string;
  readonly message: string;
  readonly detail?: string | undefined;
  readonly remedy: string;
  readonly subject?: string | undefined;
  /** Which side was offline. */
  readonly side?: "source" | "target" | undefined;
}

export interface Registration {
  readonly capture: CaptureKind;
  /** Where changes come by files: what the source and this target know each other by. */
  readonly carrier: string | undefined;
  /** Of `Replicate`: what it wants is what is registered. */
  readonly registeredOnly: boolean;
  readonly sourceSystem: string;
  readonly sourceDatabase: string;
  readonly slot: string;
  readonly state: PipelineState;
  readonly stateSince: Date;
  readonly error: StoredError | undefined;
  readonly desired: "running" | "paused";
  /** Seconds since a replicator last recorded a state. */
  readonly silentSeconds: number;
  /** Commit time of the oldest source transaction that is not applied, while the target is behind. */
  readonly behindSince: Date | undefined;
}

/** A source database, as targets know it. */
export type SourceIdentity = Pick<SourceFacts, "systemIdentifier" | "database">;

export interface Progress {
  readonly lsn: Lsn;
  /** With trigger capture: all that this snapshot of the source sees is on the target. */
  readonly snapshot: string | undefined;
  readonly commitTime: Date | undefined;
  readonly transactions: number;
  readonly rows: number;
  readonly replays: number;
  readonly conflicts: number;
  /** When progress was last recorded. */
  readonly appliedAt: Date | undefined;
}

export type TableSyncState = "init" | "data_sync" | "finished_copy";

/** The part of a table that is replicated; null for all columns, all rows. */
export interface TableShape {
  readonly columns: readonly string[] | null;
  readonly rowFilter: string | null;
}

/** A table of the source by its name, and the OID that the name had when the table was copied. */
type SourceTable = Pick<CatalogTable, "oid" | "schema" | "name">;

export interface TableState extends SourceTable, TableShape {
  readonly state: TableSyncState;
  /** Set once copied. */
  readonly copyLsn: Lsn | undefined;
  /** With trigger capture: what the copy shows. */
  readonly copySnapshot: string | undefined;
}

/** What other sessions ask of the replicator by rows on the target. */
export interface PipelineRequests {
  readonly paused: boolean;
  /** Stand still before the first transaction that commits at or after it; below every position: at once. */
  readonly holdLsn: Lsn | undefined;
  /** With trigger capture: stand still where the source is by this exported snapshot, and not before. */
  readonly holdSnapshot: string | undefined;
  /** `reportHeld` was called since. */
  readonly answered: boolean;
}

/** The rows of one pipeline in schema `erserver` of its target, except progress while applying (see apply/). */
export class PipelineStore {
  readonly #session: ControlSession;
  readonly #name: string;

  constructor(session: ControlSession, name: string) {
    this.#session = session;
    this.#name = name;
  }

  /** The pipeline's name. */
  get pipeline(): string {
    return this.#name;
  }

  async registration(): Promise<Registration | undefined> {
    const [row] = await this.#session.query(
      `select source_system, source_database, slot, state, extract(epoch from state_since)::float8::text as since, error::text as error, desired,
         extract(epoch from pg_catalog.clock_timestamp() - seen_at)::float8::text as silent, extract(epoch from behind_since)::float8::text as behind,
         coalesce(pg_catalog.to_json(p) ->> 'capture', 'wal') as capture, pg_catalog.to_json(p) ->> 'carrier' as carrier,
         pg_catalog.to_json(p) ->> 'registered_only' as registered_only
       from erserver.pipeline as p where name = $1`,
      [this.#name],
    );
    if (row === undefined) return undefined;
    return {
      // Before their migrations the table has no such columns.
      capture: row["capture"] as CaptureKind,
      carrier: row["carrier"] ?? undefined,
      registeredOnly: row["registered_only"] === "true",
      sourceSystem: row["source_system"] ?? "",
      sourceDatabase: row["source_database"] ?? "",
      slot: row["slot"] ?? "",
      state: row["state"] as PipelineState,
      stateSince: new Date(Number(row["since"]) * 1000),
      error: row["error"] == null ? undefined : (JSON.parse(row["error"]) as StoredError),
      desired: row["desired"] as Registration["desired"],
      silentSeconds: Number(row["silent"]),
      behindSince: row["behind"] == null ? undefined : new Date(Number(row["behind"]) * 1000),
    };
  }

  /** Tables of the same source that other pipelines bring to this database. */
  async tablesOfOthers(
    source: SourceIdentity,
  ): Promise<{ pipeline: string; schema: string; name: string }[]> {
    return this.#session.query<{ pipeline: string; schema: string; name: string }>(
      `select p.name as pipeline, t.source_schema as schema, t.source_table as name
       from erserver.pipeline p join erserver.table_state t on t.pipeline = p.name
       where p.name <> $1 and p.source_system = $2 and p.source_database = $3`,
      [this.#name, source.systemIdentifier, source.database],
    );
  }

  /** Registers the source once; refuses another one. */
  async register(
    source: SourceIdentity,
    slot: string,
    capture: CaptureKind,
    registeredOnly: boolean,
  ): Promise<Registration> {
    await this.#session.query(
      `insert into erserver.pipeline as known (name, source_system, source_database, slot, capture, registered_only) values ($1, $2, $3, $4, $5, $6)
       on conflict (name) do update set registered_only = excluded.registered_only where known.registered_only <> excluded.registered_only`,
      [this.#name, source.systemIdentifier, source.database, slot, capture, registeredOnly],
    );
    const registration = (await this.registration()) as Registration;
    requireSameSource(registration, source, this.#name);
    return registration;
  }

  /** Registers a source whose changes come by files, of which none is applied yet. */
  async registerCarrier(source: SourceIdentity, slot: string, carrier: string): Promise<void> {
    await this.#session.query(
      "insert into erserver.pipeline (name, source_system, source_database, slot, capture, carrier, registered_only) values ($1, $2, $3, $4, 'trigger', $5, true)",
      [this.#name, source.systemIdentifier, source.database, slot, carrier],
    );
    await this.startProgress(ZERO_LSN);
  }

  async progress(): Promise<Progress | undefined> {
    const [row] = await this.#session.query(
      `select lsn, extract(epoch from commit_time)::float8::text as commit_time, extract(epoch from applied_at)::float8::text as applied_at, transactions, rows, replays, conflicts,
         pg_catalog.to_json(p) ->> 'snapshot' as snapshot from erserver.progress as p where pipeline = $1`,
      [this.#name],
    );
    if (row === undefined) return undefined;
    return {
      lsn: parseLsn(row["lsn"] ?? ""),
      snapshot: row["snapshot"] ?? undefined,
      commitTime: row["commit_time"] == null ? undefined : new Date(Number(row["commit_time"]) * 1000),
      transactions: Number(row["transactions"]),
      rows: Number(row["rows"]),
      replays: Number(row["replays"]),
      conflicts: Number(row["conflicts"]),
      appliedAt: row["applied_at"] == null ? undefined : new Date(Number(row["applied_at"]) * 1000),
    };
  }

  /** The changes begin here. */
  async startProgress(lsn: Lsn, snapshot?: string): Promise<void> {
    await this.#session.query("insert into erserver.progress (pipeline, lsn, snapshot) values ($1, $2, $3)", [
      this.#name,
      formatLsn(lsn),
      snapshot ?? null,
    ]);
  }

  async tableStates(): Promise<TableState[]> {
    const rows = await this.#session.query(
      "select source_schema, source_table, source_oid, state, copy_lsn, pg_catalog.to_json(columns)::text as columns, row_filter, pg_catalog.to_json(t) ->> 'copy_snapshot' as copy_snapshot from erserver.table_state as t where pipeline = $1",
      [this.#name],
    );
    return rows.map((row) => ({
      schema: row["source_schema"] ?? "",
      name: row["source_table"] ?? "",
      oid: Number(row["source_oid"]),
      state: row["state"] as TableSyncState,
      copyLsn: row["copy_lsn"] == null ? undefined : parseLsn(row["copy_lsn"]),
      copySnapshot: row["copy_snapshot"] ?? undefined,
      columns: row["columns"] == null ? null : (JSON.parse(row["columns"]) as string[]),
      rowFilter: row["row_filter"] ?? null,
    }));
  }

  /** Tables that are not there yet are to be copied; those that are not copied yet are as they are now. */
  async addTables(tables: readonly (SourceTable & TableShape)[]): Promise<void> {
    const rows = tables.map(({ schema, name, oid, columns, rowFilter }) => ({
      schema,
      name,
      oid,
      columns,
      row_filter: rowFilter,
    }));
    await this.#session.query(
      `insert into erserver.table_state as known (pipeline, source_schema, source_table, source_oid, columns, row_filter)
       select $1, t.* from pg_catalog.json_to_recordset($2) as t(schema text, name text, oid oid, columns text[], row_filter text)
       on conflict (pipeline, source_schema, source_table) do update set source_oid = excluded.source_oid, columns = excluded.columns, row_filter = excluded.row_filter
         where known.state in ('init', 'data_sync')`,
      [this.#name, JSON.stringify(rows)],
    );
  }

  /** From now on only a copy that holds this token may commit for this table. */
  async claimCopy(table: Pick<CatalogTable, "schema" | "name">, token: string): Promise<void> {
    await this.#session.query(
      `update erserver.table_state set state = 'data_sync', copier = $4, state_since = now()
       where pipeline = $1 and source_schema = $2 and source_table = $3 and state in ('init', 'data_sync')`,
      [this.#name, table.schema, table.name, token],
    );
  }

  /** What is not copied yet has come with all its rows by this position. */
  async finishTables(lsn: Lsn): Promise<void> {
    await this.#session.query(
      "update erserver.table_state set state = 'finished_copy', copy_lsn = $2, state_since = now() where pipeline = $1 and state <> 'finished_copy'",
      [this.#name, formatLsn(lsn)],
    );
  }

  async forgetTables(tables: readonly Pick<CatalogTable, "schema" | "name">[]): Promise<void> {
    await this.#session.query(
      `delete from erserver.table_state where pipeline = $1 and (source_schema, source_table) in (select * from unnest($2::text[], $3::text[]))`,
      [this.#name, tables.map((table) => table.schema), tables.map((table) => table.name)],
    );
  }

  async setState(state: PipelineState, error: StoredError | undefined): Promise<void> {
    await this.#session.query(
      `update erserver.pipeline set state_since = case when state = $2 then state_since else now() end, state = $2, seen_at = pg_catalog.clock_timestamp(), error = $3::jsonb where name = $1`,
      [this.#name, state, error === undefined ? null : JSON.stringify(error)],
    );
  }

  async requests(): Promise<PipelineRequests> {
    const [row] = await this.#session.query(
      `select desired, case when hold_until > pg_catalog.clock_timestamp() then hold_lsn end as hold,
         case when hold_until > pg_catalog.clock_timestamp() then hold_snapshot end as snapshot, (held_lsn is not null)::text as answered
       from erserver.pipeline where name = $1`,
      [this.#name],
    );
    return {
      paused: row?.["desired"] === "paused",
      holdLsn: row?.["hold"] == null ? undefined : parseLsn(row["hold"]),
      holdSnapshot: row?.["snapshot"] ?? undefined,
      answered: row?.["answered"] === "true",
    };
  }

  async setDesired(desired: Registration["desired"]): Promise<void> {
    await this.#session.query("update erserver.pipeline set desired = $2 where name = $1", [
      this.#name,
      desired,
    ]);
  }

  /** Commit time of the oldest transaction that the target does not have, by the source's clock; undefined when it is close behind. */
  async setBehind(since: Date | undefined): Promise<void> {
    await this.#session.query("update erserver.pipeline set behind_since = $2 where name = $1", [
      this.#name,
      since?.toISOString() ?? null,
    ]);
  }

  /** Asks the applier to stand still before `lsn` for at most `seconds`; undefined lets it go on. */
  async hold(lsn: Lsn | undefined, seconds: number, snapshot?: string): Promise<void> {
    await this.#session.query(
      `update erserver.pipeline set hold_lsn = $2, held_lsn = null, hold_until = pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => $3), hold_snapshot = $4 where name = $1`,
      [this.#name, lsn === undefined ? null : formatLsn(lsn), seconds, snapshot ?? null],
    );
  }

  /** The applier's answer to `hold`. */
  async reportHeld(lsn: Lsn): Promise<void> {
    await this.#session.query(
      "update erserver.pipeline set held_lsn = $2 where name = $1 and hold_lsn = $2",
      [this.#name, formatLsn(lsn)],
    );
  }

  async heldLsn(): Promise<Lsn | undefined> {
    const [row] = await this.#session.query("select held_lsn from erserver.pipeline where name = $1", [
      this.#name,
    ]);
    return row?.["held_lsn"] == null ? undefined : parseLsn(row["held_lsn"]);
  }

  /** Removes all rows of the pipeline. */
  async unregister(): Promise<void> {
    await this.#session.query("delete from erserver.pipeline where name = $1", [this.#name]);
  }

  /** As the function, when no other pipeline ends here. */
  async dropSchemaIfUnused(): Promise<boolean> {
    const rows = await this.#session.query(
      "select 1 as one from erserver.pipeline where name <> $1 limit 1",
      [this.#name],
    );
    return rows.length === 0 && dropSchemaIfUnused(this.#session);
  }
}

/** Drops schema `erserver`, or what a target has in it, unless tables are registered there; true when it did. No pipeline may end here. */
export async function dropSchemaIfUnused(session: ControlSession): Promise<boolean> {
  const [there] = await session.query(
    "select pg_catalog.to_regclass('erserver.slave_table')::text as slave_table",
  );
  if (there?.["slave_table"] != null) {
    const registered = await session.query("select 1 as one from erserver.slave_table limit 1");
    if (registered.length > 0) return false;
  }
  // Who may not make a schema would not get it back: it was made for the role. And the database may be a source too.
  const [other] = await session.query(
    `select pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')::text as may_create,
       (pg_catalog.to_regclass('erserver.captured_table') is not null)::text as is_source`,
  );
  const tables =
    "drop table erserver.conflict, erserver.table_state, erserver.progress, erserver.pipeline; drop table if exists erserver.slave_table";
  if (other?.["is_source"] === "true")
    await session.query(`${tables}; delete from erserver.migration where name not like 'source/%'`);
  else
    await session.query(
      other?.["may_create"] === "true"
        ? "drop schema erserver cascade"
        : `${tables}; drop table erserver.migration`,
    );
  return true;
}

/** Whether it was registered with this source. */
export function isOf({ sourceSystem, sourceDatabase }: Registration, source: SourceIdentity): boolean {
  return sourceSystem === source.systemIdentifier && sourceDatabase === source.database;
}

/** Throws ERS-410 when the source is not the one that was registered: its slots and publications are not ours. */
export function requireSameSource(
  registration: Registration,
  source: SourceIdentity,
  pipeline: string,
): void {
  if (isOf(registration, source)) return;
  throw new ErserverError(
    "ERS-410",
    `target ${pipeline} was filled from database "${registration.sourceDatabase}" of cluster ${registration.sourceSystem}; ` +
      `the source is now "${source.database}" of cluster ${source.systemIdentifier}`,
    {
      subject: pipeline,
      remedy:
        "Correct `source` in the configuration; or, with the old source there for the last time, start over for this target: erserver drop, empty its tables, erserver run (erserver drop --force when the old source is gone).",
    },
  );
}
