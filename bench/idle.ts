import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { prepareKeyedPgbench } from "./backlog.ts";
import { establish, followerOf, type Scenario } from "./scenario.ts";

const SCALE = 20;
const SECONDS = 30;

/** Ticks a second of /proc/<pid>/stat: USER_HZ, which Linux has fixed at 100 for all that reads it. */
const TICKS = 100;

/** Sessions of a replicator. */
const SESSIONS =
  "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'erserver%' AND pid <> pg_backend_pid()";

/** Transactions of the database since its statistics began, told by every backend at least once a second. */
const COMMITS =
  "SELECT (xact_commit + xact_rollback)::float8 AS count FROM pg_stat_database WHERE datname = current_database()";

/** What an idle source spends on being looked at: processor time of the replicator's sessions there. */
export const TRIGGER_IDLE: Scenario = {
  name: "trigger-idle",
  about: `processor time of the source, on which nothing happens for ${SECONDS} s, and for each look at what triggers have recorded`,
  unit: "looks",
  contenders: ["ours"],
  yaml: "capture: trigger",
  run: async (bench) => {
    const { pair, size } = bench;
    await prepareKeyedPgbench(pair, size(SCALE));
    await establish(pair, followerOf(bench));
    await sleep(3_000);
    const { session } = pair.source;
    const { rows } = await session.query<{ pid: number }>(SESSIONS);
    const spent = (): number => rows.reduce((sum, { pid }) => sum + processorSeconds(pid), 0);
    const commits = async (): Promise<number> =>
      (await session.query<{ count: number }>(COMMITS)).rows[0]?.count ?? Number.NaN;
    const [secondsBefore, looksBefore] = [spent(), await commits()];
    const seconds = size(SECONDS);
    await sleep(seconds * 1000);
    const used = spent() - secondsBefore;
    const looks = (await commits()) - looksBefore;
    return { core_share: used / seconds, look_ms: (used / looks) * 1000 };
  },
};

/** Processor time of a process so far: fields 14 and 15 of proc(5), behind the name in parentheses. */
function processorSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /s, "")
    .split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS;
}
