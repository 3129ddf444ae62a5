import { setTimeout as sleep } from "node:timers/promises";
import { preparePgbench } from "./backlog.ts";
import type { Follower } from "./follower.ts";
import { parseTps, pgbench } from "./pgbench.ts";
import { type Bench, type Scenario, arrival, compare, establish, followerOf, memory } from "./scenario.ts";
import type { Pair } from "./servers.ts";
import { percentile } from "./statistics.ts";

const SCALE = 20;
const SECONDS = 60;

/** Steps of the search; each halves what the rate is known to lie between. */
const STEPS = 4;

/** A lag that grows is larger than that after a minute: 1.7 % of the rate are missing. */
const MOST_LAG_MS = 1_000;

/** pgbench reached the rate that it was to keep. */
const REACHED = 0.97;

const SOAK_SECONDS = 600;
const SOAK_SHARE = 0.7;
const PROBE_SECONDS = 20;
const SAMPLE_SECONDS = 5;

/** TPC-B of 4 clients, at full speed or at a rate. @returns transactions per second. */
async function load({ source }: Pair, seconds: number, rate?: number): Promise<number> {
  const limit = rate === undefined ? [] : ["-R", String(Math.round(rate))];
  return parseTps(
    await pgbench(source.cluster, ["-n", "-c", "4", "-j", "2", "-T", String(seconds), ...limit]),
  );
}

/** How long a row takes now from the source's commit to the target, in milliseconds. */
async function lagNow(pair: Pair, follower: Follower): Promise<number> {
  const start = performance.now();
  await arrival(pair, follower);
  return performance.now() - start;
}

/** pgbench's tables, followed and in step. */
async function followPgbench(bench: Bench): Promise<Follower> {
  const follower = followerOf(bench);
  await preparePgbench(bench.pair, bench.size(SCALE));
  await establish(bench.pair, follower);
  return follower;
}

/** The largest rate that was followed, in transactions per second. */
async function search({ pair, size }: Bench, follower: Follower): Promise<number> {
  const seconds = size(SECONDS);
  const full = await load(pair, seconds);
  if ((await lagNow(pair, follower)) <= MOST_LAG_MS) return full;
  let followed = 0;
  let tooMuch = full;
  for (let step = 0; step < STEPS; step++) {
    await lagNow(pair, follower);
    const rate = step === 0 ? full / 2 : (followed + tooMuch) / 2;
    const reached = await load(pair, seconds, rate);
    const lag = await lagNow(pair, follower);
    if (lag <= MOST_LAG_MS && reached >= REACHED * rate) followed = reached;
    else tooMuch = rate;
  }
  return followed;
}

export const LAG_PEAK: Scenario = {
  name: "lag-peak",
  about: `the highest rate of pgbench (TPC-B, 4 clients) that is followed for ${SECONDS} s with a lag that does not grow`,
  unit: "transactions",
  contenders: ["ours", "native"],
  run: async (bench) => {
    const follower = await followPgbench(bench);
    const tps = await search(bench, follower);
    const peak = memory(follower);
    await compare(bench.pair);
    return { tps, ...peak };
  },
};

export const SOAK_RATE: Scenario = {
  name: "soak-rate",
  about: `${SOAK_SECONDS / 60} minutes at ${SOAK_SHARE * 100} % of what pgbench reaches while it is followed: lag over the second half, beside the first`,
  unit: "transactions",
  contenders: ["ours", "native"],
  run: async (bench) => {
    const { pair, size } = bench;
    const follower = await followPgbench(bench);
    const rate = SOAK_SHARE * (await load(pair, size(PROBE_SECONDS)));
    await lagNow(pair, follower);

    const lags: number[] = [];
    const seconds = size(SOAK_SECONDS);
    let over = false;
    const loading = load(pair, seconds, rate).finally(() => {
      over = true;
    });
    const half = sleep(seconds * 500).then(() => memory(follower));
    while (!over) {
      await sleep(SAMPLE_SECONDS * 1000);
      lags.push(await lagNow(pair, follower));
    }
    const reached = await loading;
    const early = lags.splice(0, Math.floor(lags.length / 2));
    const peak = memory(follower);
    await compare(pair);
    return {
      rate: reached,
      p50_ms: percentile(lags, 0.5),
      p99_ms: percentile(lags, 0.99),
      early_p50_ms: percentile(early, 0.5),
      early_p99_ms: percentile(early, 0.99),
      early_rss_mb: (await half).rss_mb,
      ...peak,
    };
  },
};
