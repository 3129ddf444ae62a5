import { prepareKeyedPgbench, preparePgbench } from "./backlog.ts";
import { parseTps, pgbench } from "./pgbench.ts";
import { type Scenario, arrival, compare, establish, memory } from "./scenario.ts";
import { onBoth, type Pair } from "./servers.ts";

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
    const tps = await measure(pair, size(SECONDS));
    if (follower !== undefined) {
      await arrival(pair, follower);
      await compare(pair);
    }
    return { tps, ...memory(follower) };
  },
};

async function measure({ source }: Pair, seconds: number): Promise<number> {
  const load = ["-n", "-c", "4", "-j", "2", "--random-seed=1", "-T", String(seconds)];
  return parseTps(await pgbench(source.cluster, load));
}

/** Bytes of the logs with their indexes, and how many changes they hold: those of a TPC-B transaction are three updates and an insert. */
const LOGS = `SELECT sum(pg_total_relation_size(c.oid))::float8 AS bytes, (SELECT 4 * count(*)::int FROM pgbench_history) AS changes
  FROM pg_class c WHERE relnamespace = to_regnamespace('erserver') AND relname ~ '^log_[0-9]+$'`;

export const TRIGGER_OVERHEAD: Scenario = {
  name: "trigger-overhead",
  about: `the source's pgbench throughput (TPC-B, 4 clients, ${SECONDS} s) with and without triggers that nobody reads`,
  unit: "transactions",
  contenders: ["none", "ours"],
  // PostgreSQL's default level: where it is another one nobody needs triggers. And files of the WAL are used again, as on any server that
  // has run for a while: a new one is filled with zeros first, which costs whoever writes more of it.
  settings: { wal_level: "replica", min_wal_size: "8GB" },
  yaml: "capture: trigger",
  run: async ({ pair, follower, size }) => {
    await prepareKeyedPgbench(pair, size(SCALE));
    await measure(pair, size(SECONDS));
    await onBoth(pair, "TRUNCATE pgbench_history");
    await onBoth(pair, "VACUUM ANALYZE");
    await onBoth(pair, "CHECKPOINT");
    if (follower === undefined) return { tps: await measure(pair, size(SECONDS)) };
    await establish(pair, follower);
    await follower.stop();
    const tps = await measure(pair, size(SECONDS));
    const { rows } = await pair.source.session.query<{ bytes: number; changes: number }>(LOGS);
    const { bytes = 0, changes = 1 } = rows[0] ?? {};
    await follower.start();
    await arrival(pair, follower);
    await compare(pair);
    return { tps, log_bytes: bytes / changes };
  },
};
