import { preparePgbench } from "./backlog.ts";
import { type Scenario, arrival, compare, followerOf, memory, waitForCopy } from "./scenario.ts";
import { onBoth } from "./servers.ts";

const SCALE = 50;
const ROWS_PER_SCALE = 100_000;

/** Short against the time of a copy; the question is a count of a few rows. */
const POLL_MS = 5;

export const COPY: Scenario = {
  name: "copy",
  about: `the first copy of pgbench's tables, scale ${SCALE}, with two more indexes`,
  unit: "rows",
  contenders: ["ours", "native"],
  run: async (bench) => {
    const { pair, size } = bench;
    const follower = followerOf(bench);
    await preparePgbench(pair, size(SCALE));
    await onBoth(pair, "CREATE INDEX ON pgbench_accounts (bid)");
    await onBoth(pair, "CREATE INDEX ON pgbench_accounts (abalance, aid)");
    await onBoth(pair, "VACUUM ANALYZE");
    await onBoth(pair, "CHECKPOINT");

    const start = performance.now();
    await follower.start();
    await waitForCopy(pair, follower, POLL_MS);
    const seconds = (performance.now() - start) / 1000;

    const peak = memory(follower);
    await arrival(pair, follower);
    await compare(pair);
    return { s: seconds, rate: (size(SCALE) * ROWS_PER_SCALE) / seconds, ...peak };
  },
};
