import { randomInt } from "node:crypto";
import { describe, it } from "vitest";
import { runSoak } from "../support/soak-run.ts";

/** The long form is `npm run soak -- --faults 200`: see scripts/soak.mjs. */
const long = process.env["ERSERVER_SOAK"] === "1";
const seed = Number(process.env["ERSERVER_SOAK_SEED"] ?? randomInt(1_000_000));
const faults = Number(process.env["ERSERVER_SOAK_FAULTS"] ?? (long ? 200 : 10));
const minutes = Number(process.env["ERSERVER_SOAK_MINUTES"] ?? Infinity);
const deadline = Date.now() + minutes * 60_000;

/** By the seed, so that a round can be run again on its own; rounds that follow each other take turns. */
const PAIRS = [
  { sourceMajor: 15, targetMajor: 15 },
  { sourceMajor: 18, targetMajor: 18 },
  { sourceMajor: 15, targetMajor: 18 },
] as const;

/** Small groups, so that there are many to be written at the same time. */
const PARALLEL = "workers: 4, write: sets, group: { transactions: 3 }";

const WAYS = [
  { capture: "wal", gear: "auto", apply: PARALLEL },
  { capture: "wal", gear: "auto", apply: "distance: far" },
  { capture: "wal", gear: "bulk", apply: PARALLEL },
  { capture: "wal", gear: "bulk", apply: "workers: 1" },
  { capture: "trigger", gear: "auto", apply: "workers: 1" },
] as const;

/** Each round starts from an empty target. */
const FAULTS_A_ROUND = long ? 40 : 4;
const count = Math.ceil(faults / FAULTS_A_ROUND);

const rounds = Array.from({ length: count }, (_, index) => ({
  seed: seed + index,
  faults: Math.floor(faults / count) + (index < faults % count ? 1 : 0),
  ...(PAIRS[(seed + index) % PAIRS.length] as (typeof PAIRS)[number]),
  way: WAYS[(seed + index) % WAYS.length] as (typeof WAYS)[number],
}));

describe("exactly once, whatever happens", () => {
  it.for(rounds)(
    "$faults faults at random from seed $seed, PostgreSQL $sourceMajor → $targetMajor: every state of the target is one that the source had, in its order, and at the end all is equal (S1-S5, S8, T9)",
    { timeout: long ? 3_600_000 : 300_000 },
    async (round, { skip }) => {
      // The first round runs whatever the time: no soak at all must not look like one that passed.
      if (Date.now() > deadline && round.seed !== seed) skip("the time is up");
      await runSoak({
        ...round,
        copyFaults: long ? 6 : 1,
        writers: 6,
        historyRows: long ? 6_000 : 3_000,
        largeMegabytes: long ? { from: 5, to: 50 } : { from: 5, to: 10 },
        say: (line) => void process.stdout.write(`${line}\n`),
      });
    },
  );
});
