import { expect, test } from "vitest";
import { readStatus } from "../../pipeline/read-status.ts";
import { enforceLogBudget } from "../../pipeline/log-budget.ts";
import { connectControl } from "../../postgres/connect.ts";
import { startReplication } from "../../../test/support/pipeline-context.ts";

test("T10: a target that stays away is told of when more is kept for it than may be, and forgotten only when asked", async () => {
  await using replication = await startReplication({
    schema: "create table t (id int primary key, v int)",
    config: "capture: trigger",
  });
  const { source, config } = replication;
  await replication.expectEqual();
  await replication.running.stop();
  await source.query("insert into t select i, i from generate_series(1, 1000) i");
  await using session = await connectControl(config.source, { applicationName: "test", timeoutMs: 30_000 });
  const check = (change: Partial<typeof config.captureLog>) =>
    enforceLogBudget(session, { captureLog: { ...config.captureLog, ...change } });
  // It was there a moment ago.
  expect(await check({ rows: 10 })).toEqual([]);
  await source.query("update erserver.consumer set confirmed_at = now() - interval '2 hours'");
  expect(await check({})).toEqual([]);
  expect(await check({ rows: 1000 })).toEqual([]);
  const [byRows] = await check({ rows: 999 });
  expect(byRows).toMatchObject({ code: "ERS-511" });
  expect(byRows?.message).toMatch(/more than 999 changes/);
  const [byAge] = await check({ ageMs: 3_600_000 });
  expect(byAge?.message).toMatch(/changes of 2/);
  const [byBytes] = await check({ bytes: 10_000 });
  expect(byBytes?.message).toMatch(/kB of changes/);
  expect(byBytes?.remedy).toContain("erserver drop");
  const [status] = await readStatus({ ...config, captureLog: { ...config.captureLog, ageMs: 60_000 } });
  expect(status?.problems.map(({ code }) => code)).toEqual(["ERS-511"]);

  const [forgotten] = await check({ ageMs: 3_600_000, exceeded: "forget" });
  expect(forgotten?.message).toMatch(/forgotten/);
  expect(await source.query("select from erserver.consumer")).toEqual([]);
  await replication.restart();
  await expect(replication.running.finished).rejects.toMatchObject({ code: "ERS-503" });
});

test("who misses nothing may be silent for as long as it likes", async () => {
  await using replication = await startReplication({
    schema: "create table t (id int primary key)",
    config: "capture: trigger",
  });
  const { source, config } = replication;
  await replication.expectEqual();
  await replication.running.stop();
  await source.query("update erserver.consumer set confirmed_at = now() - interval '200 days'");
  await using session = await connectControl(config.source, { applicationName: "test", timeoutMs: 30_000 });
  expect(await enforceLogBudget(session, config)).toEqual([]);
});

test("T10: a target that is back before anybody has given it up is not given up by its own replicator", async () => {
  await using replication = await startReplication({
    schema: "create table t (id int primary key)",
    config: "capture: trigger\ncapture_log: { age: 1h, exceeded: forget }",
  });
  const { source } = replication;
  await replication.expectEqual();
  await replication.running.stop();
  await source.query(
    "insert into t values (1); update erserver.consumer set confirmed_at = now() - interval '2 hours'",
  );
  await replication.restart();
  await replication.expectEqual();
  await replication.running.stop();
  expect(await source.query("select from erserver.consumer")).toHaveLength(1);
});
