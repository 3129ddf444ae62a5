import { randomUUID } from "node:crypto";
import type { ControlSession } from "../../postgres/connect.ts";
import type { Wishes } from "./consumers.ts";

/** What was prepared to be carried to a target. */
export interface PreparedSync {
  readonly sync: number;
  /** Of type txid_snapshot: what the target shows once it has applied it. */
  readonly snapshot: string;
  /** Numbers in erserver.captured_table of the tables that it then has, and that have been wanted ever since. */
  readonly tables: readonly number[];
  readonly written: boolean;
}

/** A target that files are carried to, as the source knows it. */
export interface CarrierConsumer {
  /** A UUID that nobody else has. */
  readonly carrier: string;
  /** Numbers in erserver.captured_table of its tables. */
  readonly tables: readonly number[];
  /** Number of the last file that is known to be applied; undefined before the first. */
  readonly confirmed: number | undefined;
  /** That one and all later ones, in ascending order. */
  readonly prepared: readonly PreparedSync[];
}

/** Undefined when the source knows no such target, or one that a replicator serves. */
export async function readCarrierConsumer(
  session: ControlSession,
  pipeline: string,
): Promise<CarrierConsumer | undefined> {
  const [row] = await session.query(
    `select carrier, pg_catalog.to_json(tables)::text as tables, sync::text, (select coalesce(pg_catalog.json_agg(p order by sync), '[]') from (
         select sync, snapshot::text, tables, written from erserver.prepared_sync where pipeline = c.pipeline) as p)::text as prepared
       from erserver.consumer as c where pipeline = $1 and carrier is not null`,
    [pipeline],
  );
  if (row === undefined) return undefined;
  return {
    carrier: row["carrier"] ?? "",
    tables: JSON.parse(row["tables"] ?? "[]") as number[],
    confirmed: row["sync"] == null ? undefined : Number(row["sync"]),
    prepared: JSON.parse(row["prepared"] ?? "[]") as PreparedSync[],
  };
}

/**
 * Has the source keep, for this target, what happens to these tables from now on. What it kept of others is given up: should they be
 * wanted again, they come whole.
 */
export async function registerCarrierConsumer(
  session: ControlSession,
  { pipeline, name, tables }: Omit<Wishes, "registeredOnly">,
): Promise<CarrierConsumer> {
  await session.query(
    `with known as (
       insert into erserver.consumer (pipeline, tables, snapshot, carrier, name, registered_only) values ($1, $2, pg_catalog.txid_current_snapshot(), $3, $4, true)
       on conflict (pipeline) do update set tables = excluded.tables)
     update erserver.prepared_sync set tables = array(select pg_catalog.unnest(tables) intersect select pg_catalog.unnest($2::int[]))
       where pipeline = $1 and not tables <@ $2`,
    [pipeline, tables, randomUUID(), name],
  );
  return (await readCarrierConsumer(session, pipeline)) as CarrierConsumer;
}

/** From here on the number is given, whatever becomes of the file. */
export async function recordPrepared(
  session: ControlSession,
  pipeline: string,
  { sync, snapshot, tables }: Omit<PreparedSync, "written">,
): Promise<void> {
  await session.query(
    "insert into erserver.prepared_sync (pipeline, sync, snapshot, tables) values ($1, $2, $3, $4)",
    [pipeline, sync, snapshot, tables],
  );
}

export async function markWritten(session: ControlSession, pipeline: string, sync: number): Promise<void> {
  await session.query("update erserver.prepared_sync set written = true where pipeline = $1 and sync = $2", [
    pipeline,
    sync,
  ]);
}

/**
 * The target has applied the file of this number, durably: the source may forget what it sees, and the files before. False when no
 * such file has been prepared, or a later one is confirmed already.
 */
export async function confirmPrepared(
  session: ControlSession,
  pipeline: string,
  sync: number,
): Promise<boolean> {
  const rows = await session.query(
    `with confirmed as (
       update erserver.consumer as c set sync = p.sync, snapshot = p.snapshot, confirmed_at = pg_catalog.clock_timestamp()
         from erserver.prepared_sync as p
         where c.pipeline = $1 and p.pipeline = $1 and p.sync = $2 and c.carrier is not null and (c.sync is null or c.sync < p.sync) returning p.sync),
     forgotten as (delete from erserver.prepared_sync as p using confirmed where p.pipeline = $1 and p.sync < confirmed.sync)
     select sync from confirmed`,
    [pipeline, sync],
  );
  return rows.length > 0;
}
