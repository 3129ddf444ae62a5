import { randomBytes } from "node:crypto";
import { quoteLiteral } from "../quote/literal.ts";
import type { ControlSession } from "./connect.ts";

/**
 * First keys of our advisory locks in a database; the second is a hash of the pipeline's name.
 * https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS
 */
const LOCK_CLASSES = {
  /** Held by the session that applies, or that drops the pipeline. "ERSU" */
  apply: 1_163_023_957,
  /** Held by whoever makes a replicator stand still. */
  hold: 1_163_023_958,
  /** Held, shared, by sessions that write beside the one that applies. */
  worker: 1_163_023_959,
  /** Held, on a source, by whoever prepares a file for a target. */
  prepare: 1_163_023_960,
} as const;

export type LockPurpose = keyof typeof LOCK_CLASSES;

/** The two keys, as SQL. */
export function lockKeys(purpose: LockPurpose, pipeline: string): string {
  return `${LOCK_CLASSES[purpose]}, pg_catalog.hashtext(${quoteLiteral(pipeline)})`;
}

/** Of schema `erserver` and who has which table; released with the transaction. */
export const REGISTRY_LOCK = `pg_catalog.pg_advisory_xact_lock(${LOCK_CLASSES.apply}, 0)`;

/**
 * A transaction on what all pipelines that end in the database share: schema `erserver`, and who has which table. They
 * run one after the other, so that what one finds is still so when it commits.
 */
export async function oneAtATime<T>(session: ControlSession, work: () => Promise<T>): Promise<T> {
  await session.query("begin");
  try {
    await session.query(`select ${REGISTRY_LOCK}`);
    const result = await work();
    await session.query("commit");
    return result;
  } catch (error) {
    await session.query("rollback").catch(() => {});
    throw error;
  }
}

/** Takes a lock for as long as the session lasts; false while another session has it. */
export async function tryLock(
  session: ControlSession,
  purpose: LockPurpose,
  pipeline: string,
): Promise<boolean> {
  const [row] = await session.query(
    `select pg_catalog.pg_try_advisory_lock(${lockKeys(purpose, pipeline)})::text as locked`,
  );
  return row?.["locked"] === "true";
}

/** The backends that hold a lock of the pipeline in this database. */
export function lockQuery(purpose: LockPurpose, pipeline: string): string {
  return `select pid from pg_catalog.pg_locks where locktype = 'advisory' and granted and objsubid = 2
    and database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
    and classid::bigint = ${LOCK_CLASSES[purpose]} and objid::bigint = (pg_catalog.hashtext(${quoteLiteral(pipeline)})::bigint & 4294967295)`;
}

/**
 * Whether two sessions ended up in one database, whatever names led there: a lock of one is in the other's way. Nothing
 * else is exact: a cluster that was made from a backup of another has its identifier and its databases' names and OIDs.
 */
export async function inOneDatabase(one: ControlSession, other: ControlSession): Promise<boolean> {
  // 64 bits at random: a key that nobody has, and in another space than the pairs of keys above.
  const key = randomBytes(8).readBigInt64BE();
  await one.query(`select pg_catalog.pg_advisory_lock(${key})`);
  const [free] = await other.query(`select pg_catalog.pg_try_advisory_xact_lock(${key})::text as free`);
  // Nobody waits for it: a far server takes a while.
  one.query(`select pg_catalog.pg_advisory_unlock(${key})`).catch(() => {});
  return free?.["free"] !== "true";
}

/** The backends that a backend waits for, and those that they wait for: one in between may only stand in the queue for a lock. */
export async function blockersOf(session: ControlSession, backendPid: number): Promise<number[]> {
  const rows = await session.query(
    `with recursive blocker(pid) as (
       select pg_catalog.unnest(pg_catalog.pg_blocking_pids($1))
       union select pg_catalog.unnest(pg_catalog.pg_blocking_pids(pid)) from blocker)
     select pid::text from blocker`,
    [backendPid],
  );
  return rows.map((row) => Number(row["pid"]));
}
