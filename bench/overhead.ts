import { preparePgbench } from "./backlog.ts";
import { parseTps, pgbench } from "./pgbench.ts";
import { type Scenario, arrival, compare, establish, memory } from "./scenario.ts";
import { onBoth } from "./servers.ts";

const SCALE = 20;
const SECONDS = 20;

export const OVERHEAD: Scenario = {
  name: "overhead",
  about: `the source's pgbench throughput (TPC-B, 4 clients, ${SECONDS} s) while it is followed, and while it is not`,
  unit: "transactions",
  contenders: ["none", "ours", "native"],
  run: async ({ pair, follower, size }) => {
    await preparePgbench(pair, size(SCALE));
    if (follower === undefined) {
      await onBoth(pair, "VACUUM ANALYZE");
      await onBoth(pair, "CHECKPOINT");
    } else {
      await establish(pair, follower);
    }
    const load = ["-n", "-c", "4", "-j", "2", "--random-seed=1", "-T", String(size(SECONDS))];
    const tps = parseTps(await pgbench(pair.source.cluster, load));
    if (follower !== undefined) {
      await arrival(pair, follower);
      await compare(pair);
    }
    return { tps, ...memory(follower) };
  },
};
