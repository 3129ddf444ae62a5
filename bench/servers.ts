import type { Client } from "pg";
import { type Cluster, startCluster } from "../src/demo/cluster.ts";
import { openSession } from "../test/support/clusters.ts";

/**
 * Of every server of the benchmark, beside what `startCluster` sets (`wal_level = logical`, `fsync = on`). All else is PostgreSQL's
 * default. No checkpoint and no autovacuum falls into one run and not into another.
 */
const SETTINGS = {
  shared_buffers: "1GB",
  max_wal_size: "32GB",
  checkpoint_timeout: "1h",
  autovacuum: "off",
  // The default of 5 s is also how long native's worker is kept from starting again.
  wal_retrieve_retry_interval: "100ms",
} as const;

/** Two new servers on this machine, with nothing but the table of marks in them, and a superuser's session on each. */
export interface Pair extends AsyncDisposable {
  readonly source: Side;
  readonly target: Side;
}

export interface Side extends AsyncDisposable {
  readonly cluster: Cluster;
  readonly session: Client;
}

/** @param settings beside the others, and before them. */
export async function startPair(
  major: number,
  settings: Readonly<Record<string, string>> = {},
): Promise<Pair> {
  const source = await startSide(major, settings);
  try {
    const target = await startSide(major, settings);
    const dispose = async (): Promise<void> => {
      await target[Symbol.asyncDispose]();
      await source[Symbol.asyncDispose]();
    };
    return { source, target, [Symbol.asyncDispose]: dispose };
  } catch (error) {
    await source[Symbol.asyncDispose]();
    throw error;
  }
}

async function startSide(major: number, settings: Readonly<Record<string, string>>): Promise<Side> {
  const cluster = await startCluster({ major, settings: { ...SETTINGS, ...settings } });
  try {
    const session = await openSession(cluster.url());
    // Rows that the harness writes on the source to see when they are on the target.
    await session.query("CREATE TABLE mark (id bigint PRIMARY KEY)");
    const dispose = async (): Promise<void> => {
      await session.end();
      await cluster.dispose();
    };
    return { cluster, session, [Symbol.asyncDispose]: dispose };
  } catch (error) {
    await cluster.dispose();
    throw error;
  }
}

/** Runs SQL on both sides at once. */
export async function onBoth(pair: Pair, sql: string): Promise<void> {
  await Promise.all([pair.source.session.query(sql), pair.target.session.query(sql)]);
}

let lastMark = 0;

/** Commits a row on the source, durably, after all that was committed before. */
export async function writeMark(pair: Pair): Promise<number> {
  const id = ++lastMark;
  await pair.source.session.query("INSERT INTO mark VALUES ($1)", [id]);
  return id;
}

export async function hasMark(pair: Pair, id: number): Promise<boolean> {
  const { rows } = await pair.target.session.query("SELECT FROM mark WHERE id = $1", [id]);
  return rows.length === 1;
}
