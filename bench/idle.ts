import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { prepareKeyedPgbench } from "./backlog.ts";
import { establish, followerOf, type Scenario } from "./scenario.ts";
import type { Pair } from "./servers.ts";

const SCALE = 20;
const SECONDS = 30;

/** Ticks a second of /proc/<pid>/stat: USER_HZ, which Linux has fixed at 100 for all that reads it. */
const TICKS = 100;

/** Sessions of a replicator. */
const SESSIONS =
  "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'erserver%' AND pid <> pg_backend_pid()";

/** How often something happens on the source that is nothing to the replicator, in milliseconds: otherwise a look stops at the snapshot. */
const ELSEWHERE_MS = 50;

/** What a look begins with, and the milliseconds that the server logs for each statement. */
const LOOK = /statement: begin isolation level repeatable read read only/;
const DURATION = / erserver bench LOG: {2}duration: ([\d.]+) ms/;

/** What a source on which nothing happens spends on being looked at, and how long a look takes there that finds nothing. */
export const TRIGGER_IDLE: Scenario = {
  name: "trigger-idle",
  about: `processor time of the source, on which nothing happens for ${SECONDS} s, and how long a look at what triggers have recorded takes it`,
  unit: "looks",
  contenders: ["ours"],
  settings: { log_min_duration_statement: "0" },
  yaml: "capture: trigger",
  run: async (bench) => {
    const { pair, size } = bench;
    await prepareKeyedPgbench(pair, size(SCALE));
    await establish(pair, followerOf(bench));
    await sleep(3_000);
    const seconds = size(SECONDS);
    const { rows } = await pair.source.session.query<{ pid: number }>(SESSIONS);
    const spent = (): number => rows.reduce((sum, { pid }) => sum + processorSeconds(pid), 0);
    const before = spent();
    await sleep(seconds * 1000);
    const used = spent() - before;
    return { core_share: used / seconds, look_ms: await lookMs(pair, seconds) };
  },
};

/** Processor time of a process so far: fields 14 and 15 of proc(5), behind the name in parentheses. */
function processorSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /s, "")
    .split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS;
}

/** By the server's log, for looks that have to ask every table. */
async function lookMs({ source }: Pair, seconds: number): Promise<number> {
  const logged = source.cluster.log().length;
  const endMs = performance.now() + seconds * 1000;
  while (performance.now() < endMs) {
    await source.session.query("SELECT txid_current()");
    await sleep(ELSEWHERE_MS);
  }
  const lines = source.cluster.log().slice(logged).split("\n");
  const durations = lines.map((line) => Number(DURATION.exec(line)?.[1] ?? 0));
  const looks = lines.filter((line) => LOOK.test(line)).length;
  return durations.reduce((sum, ms) => sum + ms, 0) / looks;
}
