import { defineConfig } from "vitest/config";
import type { TestProjectInlineConfiguration } from "vitest/config";

/** The pair of majors that the matrix asks for; without it, the pairs that every change has to pass. */
const { ERSERVER_TEST_SOURCE: source, ERSERVER_TEST_TARGET: target } = process.env;

function pair(
  name: string,
  sourceMajor: string,
  targetMajor: string,
  include = ["{src,test}/**/*.pg.test.ts"],
  // How changes are written and read where a test does not say: see `apply.write`, `apply.workers`, `apply.distance`, `gear` and `capture`. Transactions of more
  // than `memory` are sent while they are in progress.
  {
    write = "auto",
    gear = "auto",
    workers,
    distance = "auto",
    memory,
    capture,
  }: {
    write?: string;
    gear?: string;
    workers?: string;
    distance?: string;
    memory?: string;
    capture?: string;
  } = {},
): TestProjectInlineConfiguration {
  return {
    extends: true,
    test: {
      // One process for many files: loading the program again for each takes longer than many of them run.
      isolate: false,
      name,
      include,
      globalSetup: ["test/support/servers.setup.ts"],
      env: {
        ERSERVER_TEST_SOURCE: sourceMajor,
        ERSERVER_TEST_TARGET: targetMajor,
        ERSERVER_TEST_WRITE: write,
        ERSERVER_TEST_GEAR: gear,
        ERSERVER_TEST_DISTANCE: distance,
        ...(workers === undefined ? {} : { ERSERVER_TEST_WORKERS: workers }),
        ...(memory === undefined ? {} : { ERSERVER_TEST_DECODING_MEMORY: memory }),
        ...(capture === undefined ? {} : { ERSERVER_TEST_CAPTURE: capture }),
      },
    },
  };
}

/** In a pair of the matrix. */
const forced = Object.fromEntries(
  (["write", "gear", "workers", "distance", "capture"] as const).flatMap((name) => {
    const value = process.env[`ERSERVER_TEST_${name.toUpperCase()}`];
    return value === undefined ? [] : [[name, value]];
  }),
);

/** Transactions of every kind; not what commands say about the state. */
const TRANSACTIONS = [
  "test/replication/!(commands).pg.test.ts",
  "test/values/{every-type,random-tables}.pg.test.ts",
  "src/{pipeline,verify}/**/*.pg.test.ts",
];

const unit: TestProjectInlineConfiguration = {
  extends: true,
  test: {
    name: "unit",
    include: ["{src,test,bench,scripts}/**/*.test.ts"],
    exclude: ["**/*.pg.test.ts", "**/*.e2e.test.ts"],
  },
};

const endToEnd: TestProjectInlineConfiguration = {
  extends: true,
  test: {
    ...pair("e2e", "15", "18", ["test/{e2e,requirements,tutorial}/**/*.e2e.test.ts"]).test,
    // After the others: these stop servers and count memory.
    sequence: { groupOrder: 1 },
  },
};

export default defineConfig({
  test: {
    // Processes, not threads: each has its own signals, exit and memory.
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 120_000,
    passWithNoTests: false,
    projects:
      source !== undefined && target !== undefined
        ? [pair("matrix", source, target, undefined, forced)]
        : [
            unit,
            pair("pg-15", "15", "15"),
            // What the requirements say does not depend on the major; the matrix runs them too.
            pair("pg-18", "18", "18", ["{src,test/!(requirements)}/**/*.pg.test.ts"], {
              write: "sets",
              distance: "far",
            }),
            pair("bulk", "15", "15", TRANSACTIONS, { gear: "bulk" }),
            pair("parallel", "15", "15", TRANSACTIONS, { write: "sets", workers: "4", memory: "64kB" }),
            pair(
              "trigger",
              "15",
              "18",
              ["test/replication/{random-workload,first-copy}.pg.test.ts", "test/values/**/*.pg.test.ts"],
              { capture: "trigger" },
            ),
            // What needs one server alone has met both by then.
            pair(
              "mixed-15-18",
              "15",
              "18",
              [
                "src/{pipeline,verify}/**/*.pg.test.ts",
                "src/postgres/table-hash.pg.test.ts",
                "test/{bad-input,replication,values}/**/*.pg.test.ts",
              ],
              { write: "rows" },
            ),
            endToEnd,
          ],
  },
});
