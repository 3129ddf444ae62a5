import type { Lsn } from "../../change/lsn.ts";
import type { ControlSession } from "../../postgres/connect.ts";
import { notSeenBy, parseSnapshot, parseTargetSnapshot, seesAllOf, type XidSnapshot } from "./snapshot.ts";

/** A target, as the source knows it. */
export interface Consumer {
  /** Numbers of its tables in erserver.captured_table. */
  readonly tables: readonly number[];
  /** Of a target that files are carried to: see prepared-syncs.ts. */
  readonly carrier: string | undefined;
  /** All that it sees the source may have forgotten. */
  readonly confirmed: XidSnapshot;
  /** What the source showed when this was read. */
  readonly now: XidSnapshot;
}

/** Whether the source has anything of trigger capture. */
export async function captureExists(session: ControlSession): Promise<boolean> {
  const [there] = await session.query("select pg_catalog.to_regclass('erserver.consumer')::text as name");
  return there?.["name"] != null;
}

/** Undefined where schema `erserver` of the source, or the consumer in it, is not there, or has come from another database by a dump. */
export async function readConsumer(session: ControlSession, pipeline: string): Promise<Consumer | undefined> {
  if (!(await captureExists(session))) return undefined;
  const [row] = await session.query(
    `select pg_catalog.to_json(tables)::text as tables, pg_catalog.to_json(c) ->> 'carrier' as carrier, snapshot::text as confirmed,
       pg_catalog.txid_current_snapshot()::text as now from erserver.consumer as c where pipeline = $1
       and exists (select from erserver.capture_origin as o join pg_catalog.pg_control_system() as s on s.system_identifier::text = o.system
         join pg_catalog.pg_database as d on d.oid = o.database and d.datname = pg_catalog.current_database())`,
    [pipeline],
  );
  if (row === undefined) return undefined;
  return {
    tables: JSON.parse(row["tables"] ?? "[]") as number[],
    // Before its migration the table has no such column.
    carrier: row["carrier"] ?? undefined,
    confirmed: parseSnapshot(row["confirmed"] ?? ""),
    now: parseSnapshot(row["now"] ?? ""),
  };
}

/**
 * Whether the source has all that has changed since the state that a target shows, by the target's record, which was read before. When one
 * of the two was set back to an older state, it has not.
 */
export function continues({ confirmed, now }: Consumer, shown: string): boolean {
  const { base } = parseTargetSnapshot(shown);
  return seesAllOf(base, confirmed) && seesAllOf(now, base);
}

/** What a target wants. */
export interface Wishes {
  /** Its name on the source. */
  readonly pipeline: string;
  /** As its configuration calls it. */
  readonly name: string;
  readonly tables: readonly number[];
  /** As long as they are registered there. */
  readonly registeredOnly: boolean;
}

/** Has the source keep, for this target, what happens to its tables from now on. */
export async function registerConsumer(
  session: ControlSession,
  { pipeline, name, tables, registeredOnly }: Wishes,
): Promise<void> {
  await session.query(
    `insert into erserver.consumer (pipeline, name, tables, registered_only, snapshot) values ($1, $2, $3, $4, pg_catalog.txid_current_snapshot())
     on conflict (pipeline) do update set name = excluded.name, tables = excluded.tables, registered_only = excluded.registered_only`,
    [pipeline, name, tables, registeredOnly],
  );
}

/** All that the snapshot sees is on the target, durably, and everything before this number. */
export async function confirm(
  session: ControlSession,
  pipeline: string,
  { text }: XidSnapshot,
  sync: Lsn,
): Promise<void> {
  await session.query(
    "update erserver.consumer set snapshot = $2, sync = $3, confirmed_at = pg_catalog.clock_timestamp() where pipeline = $1",
    [pipeline, text, String(sync)],
  );
}

export async function forgetConsumer(session: ControlSession, pipeline: string): Promise<void> {
  await session.query("delete from erserver.consumer where pipeline = $1", [pipeline]);
}

/** The logs of these tables, and the bytes that each takes. */
export async function readLogs(
  session: ControlSession,
  tables: readonly number[],
): Promise<{ readonly log: string; readonly bytes: number }[]> {
  const rows = await session.query<{ log: string; bytes: string }>(
    `select l.log::text, pg_catalog.pg_total_relation_size(l.log)::text as bytes
     from pg_catalog.unnest($1::int[]) as t(id) cross join lateral (select pg_catalog.to_regclass('erserver.log_' || t.id) as log) as l where l.log is not null`,
    [tables],
  );
  return rows.map(({ log, bytes }) => ({ log, bytes: Number(bytes) }));
}

/** What is recorded for a target: whether it misses anything, and the bytes that all logs of its tables take. */
export async function readPending(
  session: ControlSession,
  { tables }: Consumer,
  snapshot: XidSnapshot,
): Promise<{ readonly missing: boolean; readonly bytes: number }> {
  const logs = await readLogs(session, tables);
  const isNew = notSeenBy(snapshot, "xid");
  const [row] = await session.query(
    `select (${[
      ...logs.map(({ log }) => `exists (select from ${log} where ${isNew})`),
      `exists (select from erserver.replacement where captured_table = any ($1) and ${isNew})`,
    ].join(" or ")})::text as missing`,
    [tables],
  );
  return {
    missing: row?.["missing"] === "true",
    bytes: logs.reduce((sum, { bytes }) => sum + bytes, 0),
  };
}
