import { describe, expect, test } from "vitest";
import { createLogger } from "../../src/observability/log.ts";
import { readStatus } from "../../src/pipeline/read-status.ts";
import { setDesired } from "../../src/pipeline/pause.ts";
import { testMajor } from "../support/clusters.ts";
import { type Replication, startReplication, testLog } from "../support/pipeline-context.ts";
import { until } from "../support/wait.ts";

/** A slot can be copied from 12 on. */
const copiesSlots = testMajor("source") >= 12;

const SCHEMA = "create table t (id int primary key, body text, n int not null default 0)";

/** Commits about 90 MB of WAL in 45 transactions, behind the back of a pipeline that does not run. */
async function fallBehind({ source }: Replication): Promise<void> {
  for (let from = 0; from < 45; from++) {
    await source.query(
      `insert into t select ${from} * 8000 + i, repeat(md5(i::text), 6) from generate_series(1, 8000) i`,
    );
    await source.query(`update t set n = n + 1 where id % 1000 = ${from}`);
  }
}

const statesOf = ({ running }: Replication): string[] => running.statuses.map(({ state }) => state);

describe.runIf(copiesSlots)("the bulk gear", () => {
  test("reads a large backlog, and leaves what comes then to the stream", async () => {
    await using replication = await startReplication({ schema: SCHEMA, config: "gear: auto" });
    await replication.caughtUp();
    await replication.running.stop();
    await fallBehind(replication);
    await replication.restart();
    await replication.caughtUp();
    await replication.source.query("insert into t values (-1, 'behind it')");
    await replication.expectEqual();
    expect(statesOf(replication)).toContain("catching-up (bulk)");
    await until(() => statesOf(replication).at(-1) === "streaming", { what: "the state streaming" });
    // None of the temporary slots is left, and the pipeline's own moves on.
    await until(
      async () =>
        (
          await replication.source.query(
            "select from pg_replication_slots where database = current_database() and temporary",
          )
        ).length === 0,
      { what: "the temporary slots to be gone" },
    );
  });

  test("is left after a bite for the stream when rows are large", async () => {
    await using replication = await startReplication({ schema: SCHEMA, config: "gear: auto" });
    await replication.source.query("alter table t alter body set storage external");
    await replication.caughtUp();
    await replication.running.stop();
    for (let id = 1; id <= 500; id++)
      await replication.source.query(`insert into t values (${id}, repeat(md5('${id}'), 12500))`);
    await replication.restart();
    await replication.caughtUp();
    expect(statesOf(replication)).toContain("catching-up (bulk)");
    // A bite beyond the first would have been too large for work_mem.
    const [written] = await replication.source.query(
      "select temp_bytes::text as bytes from pg_stat_database where datname = current_database()",
    );
    expect(written).toEqual({ bytes: "0" });
    await replication.expectEqual();
  });

  test("ends in the middle of large transactions that are still being written", async () => {
    await using replication = await startReplication({
      schema: SCHEMA,
      config: "gear: auto\napply: { group: { bytes: 64kB } }",
    });
    await replication.caughtUp();
    await replication.running.stop();
    for (let from = 0; from < 6; from++) {
      await replication.source.query(
        `insert into t select ${from} * 60000 + i, repeat(md5(i::text), 6) from generate_series(1, 60000) i`,
      );
    }
    await replication.restart();
    await replication.expectEqual();
    expect(statesOf(replication)).toContain("catching-up (bulk)");
    expect(statesOf(replication)).not.toContain("offline");
  });

  test("a target that is paused in the middle keeps no snapshot of the source, and goes on where it was", async () => {
    await using replication = await startReplication({ schema: SCHEMA, config: "gear: auto" });
    await replication.caughtUp();
    const { source, config } = replication;
    const [target] = config.targets;
    if (target === undefined) throw new Error("no target");
    await replication.running.stop();
    await fallBehind(replication);
    await replication.restart();
    await until(() => statesOf(replication).includes("catching-up (bulk)"), { what: "the bulk gear" });
    await setDesired({ config, target, log: testLog() }, "paused");
    await until(() => statesOf(replication).at(-1) === "paused", { what: "the state paused" });
    await until(
      async () =>
        (
          await source.query(
            "select from pg_stat_activity where datname = current_database() and backend_xmin is not null and query like 'copy%'",
          )
        ).length === 0,
      { what: "the bite to be given up" },
    );
    await setDesired({ config, target, log: testLog() }, "running");
    await replication.expectEqual();
  });

  test("sessions that are ended in the middle of a bite lose nothing and repeat nothing", async () => {
    await using replication = await startReplication({ schema: SCHEMA, config: "gear: bulk" });
    await replication.caughtUp();
    const { source, target } = replication;
    let ended = 0;
    const writing = fallBehind(replication);
    for (let round = 0; round < 20; round++) {
      const rows = await source.query(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and query like 'copy (select data from pg_catalog.pg_logical_slot_get%' and pid <> pg_backend_pid()",
      );
      ended += rows.length;
      await new Promise((resolve) => setTimeout(resolve, 50 + round * 10));
    }
    await writing;
    await replication.expectEqual();
    expect(ended).toBeGreaterThan(0);
    expect(await target.query("select replays, conflicts from erserver.progress")).toEqual([
      { replays: "0", conflicts: "0" },
    ]);
  });

  test("a source that forbids it is read by the stream, and the log says why", async () => {
    const lines: string[] = [];
    await using replication = await startReplication({
      schema: SCHEMA,
      // Made anew where the server's own is not found.
      sourceSchema:
        "alter function pg_copy_logical_replication_slot(name, name, boolean) rename to forbidden",
      config: "gear: bulk",
      log: createLogger({ level: "info", write: (line) => lines.push(line) }),
    });
    await replication.source.query("insert into t select i, 'x' from generate_series(1, 1000) i");
    await replication.expectEqual();
    expect(statesOf(replication)).not.toContain("catching-up (bulk)");
    expect(lines.join("")).toMatch(/the bulk gear cannot be used: .*pg_copy_logical_replication_slot/);
  });
});

test("each transaction is one of its own where that is asked for", async () => {
  await using replication = await startReplication({
    schema: SCHEMA,
    config: "apply: { mode: transaction }",
  });
  await replication.caughtUp();
  await replication.running.stop();
  for (let id = 0; id < 50; id++) await replication.source.query(`insert into t values (${id}, 'x')`);
  await replication.restart();
  await replication.expectEqual();
  expect(await replication.target.query("select count(distinct xmin::text)::int as n from t")).toEqual([
    { n: 50 },
  ]);
});

test("several become one where they may, within the bound that is set", async () => {
  await using replication = await startReplication({
    schema: SCHEMA,
    config: "apply: { group: { transactions: 10 } }",
  });
  await replication.caughtUp();
  await replication.running.stop();
  for (let id = 0; id < 50; id++) await replication.source.query(`insert into t values (${id}, 'x')`);
  await replication.restart();
  await replication.expectEqual();
  expect(
    await replication.target.query(
      "select max(n)::int as most from (select count(*) as n from t group by xmin::text) as g",
    ),
  ).toEqual([{ most: 10 }]);
});

test("a target can be kept behind: what is younger is not there, and comes in its time", async () => {
  await using replication = await startReplication({ schema: SCHEMA, config: "apply: { delay: 4s }" });
  await replication.caughtUp();
  const { source, target, config } = replication;
  await source.query("insert into t values (1, 'first')");
  await until(async () => (await source.query("select clock_timestamp()")).length === 1, {
    what: "a moment",
  });
  const seen = await until(
    async () => {
      const [row] = await target.query<{ age: number }>(
        "select extract(epoch from clock_timestamp() - (select commit_time from erserver.progress))::float8 as age from t where id = 1",
      );
      return row;
    },
    { what: "the row" },
  );
  expect(seen.age).toBeGreaterThanOrEqual(4);
  await source.query("insert into t values (2, 'second')");
  const [status] = await readStatus(config);
  expect(status?.running).toBe(true);
  await replication.expectEqual();
});
