import { expectEqualTables } from "../test/support/compare.ts";
import { type Follower, waitUntil } from "./follower.ts";
import type { Contender, Metrics } from "./report.ts";
import { hasMark, onBoth, type Pair, writeMark } from "./servers.ts";

/** One kind of load, measured the same way for everybody. */
export interface Scenario {
  readonly name: string;
  /** One line for `--help`. */
  readonly about: string;
  /** What the rate counts. */
  readonly unit: string;
  readonly contenders: readonly Contender[];
  /** Which of the two is so many milliseconds, each way, from whoever replicates; PostgreSQL itself does that on the target. */
  readonly far?: { readonly side: "source" | "target"; readonly delayMs: number };
  /** More settings of both servers. */
  readonly settings?: Readonly<Record<string, string>>;
  /** More of erserver's configuration. */
  readonly yaml?: string;
  run(bench: Bench): Promise<Metrics>;
}

export interface Bench {
  readonly pair: Pair;
  /** Undefined for the contender `none`. */
  readonly follower: Follower | undefined;
  /** The number, made smaller or larger as `--scale` says; at least 1. */
  readonly size: (full: number) => number;
}

/** The follower of a scenario in which there always is one. */
export function followerOf({ follower }: Bench): Follower {
  if (follower === undefined) throw new Error("the scenario needs a follower");
  return follower;
}

const TABLES =
  "SELECT count(*)::int FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";

/** Waits until every table of the source has its first copy on the target. */
export async function waitForCopy(pair: Pair, follower: Follower, interval: number): Promise<void> {
  const { rows } = await pair.source.session.query<{ count: number }>(TABLES);
  const count = rows[0]?.count;
  await waitUntil(
    follower,
    "the first copy",
    interval,
    async () => (await follower.tables("copied")) === count,
  );
}

/** Starts the follower and waits until it follows every table; then both sides are as after a night's rest. */
export async function establish(pair: Pair, follower: Follower): Promise<void> {
  await follower.start();
  await waitForCopy(pair, follower, 50);
  const copied = await follower.tables("copied");
  await waitUntil(follower, "all tables to be ready", 200, async () => {
    // Something to pass: a table becomes ready when the stream is past the end of its copy.
    await writeMark(pair);
    return (await follower.tables("ready")) === copied;
  });
  await arrival(pair, follower);
  await onBoth(pair, "VACUUM ANALYZE");
  await onBoth(pair, "CHECKPOINT");
}

/** Waits until the target has all that the source has committed. */
export async function arrival(pair: Pair, follower: Follower): Promise<void> {
  const mark = await writeMark(pair);
  await waitUntil(follower, "the last row", 5, () => hasMark(pair, mark));
}

/** Fails when a table differs. */
export async function compare({ source, target }: Pair): Promise<void> {
  await expectEqualTables(source.cluster.url(), target.cluster.url());
}

/** The replicator's peak memory, when there is one to tell. */
export function memory(follower: Follower | undefined): Metrics {
  const megabytes = follower?.peakMemory();
  return megabytes === undefined ? {} : { rss_mb: megabytes };
}
