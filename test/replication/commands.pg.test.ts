import pg from "pg";
import { expect, test } from "vitest";
import { toErserverError } from "../../src/errors/erserver-error.ts";
import type { CommandOptions } from "../../src/pipeline/context.ts";
import { dropPipeline } from "../../src/pipeline/drop.ts";
import { initPipeline } from "../../src/pipeline/init.ts";
import { setDesired } from "../../src/pipeline/pause.ts";
import { readStatus } from "../../src/pipeline/read-status.ts";
import { syncTarget } from "../../src/pipeline/sync.ts";
import { REGISTRY_LOCK } from "../../src/postgres/advisory-lock.ts";
import { verifyTarget } from "../../src/verify/verify.ts";
import {
  commandOptions,
  expectOffline,
  expectRefused,
  expectStopped,
  ourObjects,
} from "../support/bad-input.ts";
import { type FreshDatabase, freshDatabase, sharedCluster } from "../support/clusters.ts";
import { expectEqualTables } from "../support/compare.ts";
import {
  caughtUp,
  type Replication,
  runPipeline,
  type RunningPipeline,
  startReplication,
  testConfig,
  THERE,
} from "../support/pipeline-context.ts";
import { until } from "../support/wait.ts";

const SCHEMA = "create table t (id int primary key, v text)";

function optionsOf({ config }: Replication): CommandOptions & { signal: AbortSignal } {
  return commandOptions(config);
}

async function status({ config }: Replication): Promise<Awaited<ReturnType<typeof readStatus>>[number]> {
  const [first] = await readStatus(config);
  return first as NonNullable<typeof first>;
}

test("pause lets a target stand still, also across a restart, and resume lets it go on; sync and verify say why they cannot", async () => {
  await using replication = await startReplication({ schema: SCHEMA });
  await replication.caughtUp();
  const { source, target } = replication;
  const options = optionsOf(replication);
  expect(await setDesired(options, "paused")).toBe(true);
  expect(await setDesired(options, "paused")).toBe(false);
  await until(() => replication.running.pipeline.status.state === "paused", { what: "the state paused" });
  await source.query("insert into t values (1, 'while paused')");
  await expectRefused(syncTarget(options), {
    code: "ERS-803",
    names: source.name,
    remedy: "erserver resume",
  });
  await expectRefused(verifyTarget(options), {
    code: "ERS-803",
    names: source.name,
    remedy: "erserver resume",
  });
  await replication.restart();
  await until(() => replication.running.pipeline.status.state === "paused", { what: "the state paused" });
  expect(await target.query("select 1 from t")).toEqual([]);
  expect(await status(replication)).toMatchObject({
    state: "paused",
    running: true,
    lagBytes: expect.any(Number) as number,
  });
  expect(await setDesired(options, "running")).toBe(true);
  await replication.expectEqual();
  await until(async () => (await status(replication)).state === "streaming", { what: "the state streaming" });
});

/** Waits until a session of ours waits for another session of the database. */
async function blocked(database: FreshDatabase): Promise<void> {
  await until(
    async () =>
      (
        await database.query(
          "select from pg_stat_activity where datname = current_database() and application_name like 'erserver%' and cardinality(pg_blocking_pids(pid)) > 0",
        )
      ).length > 0,
    { what: "a session of ours to wait" },
  );
}

/** As a command reports it. */
function reported<T>(work: Promise<T>): Promise<T> {
  return work.catch((error: unknown) => {
    throw toErserverError(error);
  });
}

test("a target that is paused while sync or verify bring it on, with no other replicator: both say so and leave nothing", async () => {
  await using replication = await startReplication({ schema: SCHEMA });
  await replication.caughtUp();
  await replication.running.stop();
  const { source, target } = replication;
  const options = optionsOf(replication);
  const blocker = await target.connect();
  for (const command of [syncTarget, verifyTarget]) {
    await source.query("insert into t select count(*), 'while paused' from t");
    await blocker.query("begin; lock table erserver.progress in access exclusive mode");
    const refused = expectRefused(command(options), {
      code: "ERS-803",
      names: source.name,
      remedy: "erserver resume",
    });
    await blocked(target);
    await setDesired(options, "paused");
    await blocker.query("commit");
    await refused;
    expect((await ourObjects(source.url)).filter((name) => name.startsWith("slot"))).toEqual([
      `slot erserver_${source.name}`,
    ]);
    expect(await target.query("select from t")).toEqual([]);
    expect(await status(replication)).toMatchObject({ state: "stopped", error: undefined });
    await setDesired(options, "running");
  }
  await replication.restart();
  await replication.expectEqual();
});

test("sync beside the first run waits for what is not made yet, and hears that the target was paused since", async () => {
  await using source = await freshDatabase(sharedCluster("source"));
  await using target = await freshDatabase(sharedCluster("target"));
  for (const database of [source, target]) await database.query(SCHEMA);
  const options = commandOptions(testConfig(source.url, { [source.name]: target.url }));
  const open = await source.connect();
  await open.query("begin; insert into t values (1, 'open')");
  const migrating = await target.connect();
  await migrating.query(`begin; select ${REGISTRY_LOCK}`);
  await using running = runPipeline(options.config, source.name);
  await blocked(target);
  const refusal = { code: "ERS-803", names: source.name, remedy: "erserver resume" } as const;
  const refused = Promise.all([1, 2].map(() => expectRefused(syncTarget(options), refusal)));
  refused.catch(() => {});
  // The question whether somebody serves the target, before each pause.
  await until(
    async () =>
      (
        await target.query(
          "select from pg_stat_activity where datname = current_database() and application_name like '%command' and query like '%objsubid = 2%' and state = 'idle'",
        )
      ).length === 2,
    { what: "both to poll" },
  );
  await migrating.query("commit");
  await until(() => setDesired(options, "paused"), { what: "the target to be registered" });
  await refused;
  await setDesired(options, "running");
  const waiting = syncTarget(options);
  await open.query("commit");
  expect(await waiting).toMatchObject({ waitedForOther: true });
  await caughtUp(source, running);
  await expectEqualTables(source.url, target.url);
});

test("a target that is dropped while a command looks at it: ERS-407", async () => {
  await using replication = await startReplication({ schema: SCHEMA });
  await replication.caughtUp();
  await replication.running.stop();
  const { target } = replication;
  const options = optionsOf(replication);
  const refusal = { code: "ERS-407", names: "no state of this pipeline", remedy: "erserver run" } as const;

  const dropping = await target.connect();
  await dropping.query("begin; drop schema erserver cascade");
  const resuming = expectRefused(reported(setDesired(options, "running")), refusal);
  await blocked(target);
  const looking = status(replication);
  await until(async () => (await target.query("select from pg_locks where not granted")).length > 1, {
    what: "status to wait too",
  });
  await dropping.query("commit");
  await resuming;
  expect(await looking).toMatchObject({ state: "stopped", error: { code: "ERS-407" }, running: false });
});

test("verify beside drop: ERS-407, and what was dropped is not made anew", async () => {
  await using replication = await startReplication({ schema: SCHEMA });
  await replication.caughtUp();
  await replication.running.stop();
  const { source, target } = replication;
  const options = optionsOf(replication);
  const open = await source.connect();
  await open.query("begin; insert into t values (1, 'open')");
  const refused = expectRefused(reported(verifyTarget(options)), {
    code: "ERS-407",
    names: "no state of this pipeline",
    remedy: "erserver run",
  });
  await until(async () => (await ourObjects(source.url)).some((name) => name.includes("_verify_")), {
    what: "verify to wait for the open transaction",
  });
  await dropPipeline(options);
  await open.query("commit");
  await refused;
  await until(async () => (await ourObjects(source.url)).length === 0, { what: "nothing to be left" });
  expect(await ourObjects(target.url)).toEqual([]);
});

test("drop keeps others out until it is done, and one that is broken off has removed nothing", async () => {
  await using replication = await startReplication({ schema: SCHEMA });
  await replication.caughtUp();
  const { source, target, config } = replication;
  const options = optionsOf(replication);
  const refusal = { code: "ERS-508", names: source.name, remedy: "Stop erserver run" } as const;
  await expectRefused(dropPipeline(options), refusal);
  await replication.running.stop();

  const before = await ourObjects(source.url);
  const blocker = await target.connect();
  await blocker.query("begin; select from erserver.progress for update");
  const broken = expectRefused(dropPipeline(options), { code: "ERS-705", names: "canceling", remedy: "" });
  await blocked(target);
  expect(await initPipeline(options)).toEqual({ changes: [], problems: [] });
  await expectRefused(dropPipeline(options), refusal);
  await using running = runPipeline(config, source.name);
  await expectOffline(running, "target", { code: "ERS-508", names: source.name, remedy: "waits" });
  await running.stop();
  await target.query(
    "select pg_cancel_backend(pid) from pg_stat_activity where datname = current_database() and application_name like '%command' and cardinality(pg_blocking_pids(pid)) > 0",
  );
  await broken;
  await blocker.query("commit");
  expect(await ourObjects(source.url)).toEqual(before);

  const gone = dropPipeline({ ...options, force: true, signal: AbortSignal.abort() });
  await expect(gone).rejects.toThrow(/abort/);
  expect(await ourObjects(source.url)).toEqual(before);
  await replication.restart();
  await replication.expectEqual();
  await replication.running.stop();

  expect((await dropPipeline(options)).left).toEqual([]);
  expect(await ourObjects(source.url)).toEqual([]);
  expect(await ourObjects(target.url)).toEqual([]);
});

test("a statement of ours that somebody cancels is tried again, whatever it was about", async () => {
  await using replication = await startReplication({ schema: SCHEMA });
  await replication.caughtUp();
  const { source, target } = replication;
  const blocker = await target.connect();
  await blocker.query("begin; lock table t in access exclusive mode");
  await source.query("insert into t values (1, 'a')");
  const cancelled = async (): Promise<boolean> =>
    (
      await target.query(
        "select pg_cancel_backend(pid) from pg_stat_activity where datname = current_database() and application_name like 'erserver%' and wait_event_type = 'Lock'",
      )
    ).length > 0;
  await until(cancelled, { what: "the applier to wait and to be cancelled" });
  await until(() => replication.running.statuses.some(({ error }) => error?.code === "ERS-705"), {
    what: "the cancel to be told",
  });
  await blocker.query("commit");
  await replication.expectEqual();
  expect(replication.running.statuses.map(({ state }) => state)).not.toContain("stopped");
});

test("a change that waits is told as lag, in bytes and in seconds", async () => {
  await using replication = await startReplication({ schema: SCHEMA });
  await replication.caughtUp();
  await until(async () => (await status(replication)).lagBytes === 0, { what: "no lag" });
  expect(await status(replication)).toMatchObject({ state: THERE, lagSeconds: 0, error: undefined });
  const { source, target } = replication;
  const blocker = await target.connect();
  await blocker.query("begin; lock table t in access exclusive mode");
  await source.query("insert into t values (1, 'a')");
  await until(async () => ((await status(replication)).lagSeconds ?? 0) > 2, { what: "two seconds of lag" });
  expect((await status(replication)).lagBytes).toBeGreaterThan(0);
  await blocker.query("commit");
  await replication.caughtUp();
  await until(async () => (await status(replication)).lagSeconds === 0, { what: "no lag" });
});

// Who reads in bulk does so from copies of the slot, and needs it only now and then.
test.skipIf(THERE !== "streaming")(
  "a slot that somebody else uses: offline with ERS-507 in status too, until it is free",
  async () => {
    await using replication = await startReplication({ schema: SCHEMA });
    await replication.caughtUp();
    await replication.running.stop();
    const { source } = replication;
    const other = new pg.Client({ connectionString: source.url, replication: "database" } as pg.ClientConfig);
    await other.connect();
    // Never answered: the session streams from now on.
    other
      .query(
        `START_REPLICATION SLOT "erserver_${source.name}" LOGICAL 0/0 (proto_version '1', publication_names '"erserver_${source.name}"')`,
      )
      .catch(() => undefined);
    await until(
      async () =>
        (
          await source.query(
            `select from pg_replication_slots where active and slot_name = 'erserver_${source.name}'`,
          )
        ).length > 0,
      { what: "the slot to be in use" },
    );
    await replication.restart();
    await until(async () => (await status(replication)).error?.code === "ERS-507", {
      what: "ERS-507 in status",
    });
    expect(await status(replication)).toMatchObject({ state: "offline", side: "source" });
    other.on("error", () => undefined);
    await source.query(
      "select pg_terminate_backend(active_pid) from pg_replication_slots where active and database = current_database()",
    );
    await source.query("insert into t values (1, 'a')");
    await replication.expectEqual();
  },
);

test("a signal ends run and init also while the source makes them wait for an open transaction", async () => {
  await using source = await freshDatabase(sharedCluster("source"));
  await using target = await freshDatabase(sharedCluster("target"));
  for (const database of [source, target]) await database.query(SCHEMA);
  const open = await source.connect();
  await open.query("begin; insert into t values (1, 'not yet')");
  const config = testConfig(source.url, { [source.name]: target.url });
  const waitsForSlot = async (): Promise<void> => {
    const query = `select from pg_stat_activity where query like 'CREATE_REPLICATION_SLOT "erserver_${source.name}"%'`;
    await until(async () => (await source.query(query)).length > 0, { what: "the slot to be waited for" });
  };
  const leavesNothing = async (): Promise<void> => {
    const query = `select from pg_stat_activity where application_name like 'erserver ${source.name}%'`;
    await until(async () => (await source.query(query)).length === 0, { what: "no session to be left" });
    expect((await ourObjects(source.url)).filter((name) => name.startsWith("slot"))).toEqual([]);
    const [{ state } = { state: undefined }] = await readStatus(config);
    expect(state).toBe("stopped");
  };
  const abort = new AbortController();
  const broken = initPipeline({ ...commandOptions(config), signal: abort.signal });
  const outcome = broken.then(
    () => "ended",
    () => "broken off",
  );
  await waitsForSlot();
  abort.abort();
  expect(await outcome).toBe("broken off");
  await leavesNothing();
  const running = runPipeline(config, source.name);
  await waitsForSlot();
  await running.stop();
  await leavesNothing();
  await open.query("commit");
  await using again = runPipeline(config, source.name);
  await caughtUp(source, again);
  await expectEqualTables(source.url, target.url);
});

test("drop --force when the target is gone for good: the slot goes, and what is left is named", async () => {
  await using source = await freshDatabase(sharedCluster("source"));
  const target = await freshDatabase(sharedCluster("target"));
  for (const database of [source, target]) await database.query(SCHEMA);
  const options = commandOptions(testConfig(source.url, { [source.name]: target.url }));
  await initPipeline(options);
  await target[Symbol.asyncDispose]();
  await expectRefused(dropPipeline(options), {
    code: "ERS-203",
    names: `erserver_${source.name}`,
    remedy: "erserver drop --force",
  });
  expect(await ourObjects(source.url)).toHaveLength(3);
  const { dropped, left } = await dropPipeline({ ...options, force: true });
  expect(dropped.join()).toContain(`replication slot erserver_${source.name}`);
  expect(left).toHaveLength(1);
  expect(await ourObjects(source.url)).toEqual([]);
});

test("a second pipeline of the same tables into the same database is refused by name", async () => {
  await using replication = await startReplication({ schema: `${SCHEMA}; create table u (id int)` });
  await replication.caughtUp();
  const { source, target } = replication;
  const second = testConfig(source.url, { second: target.url });
  const refusal = { code: "ERS-412", names: "public.t", remedy: source.name } as const;
  await expectStopped(runPipeline(second, "second"), refusal);
  await expectRefused(initPipeline(commandOptions(second)), refusal);
  expect((await ourObjects(source.url)).join()).not.toContain("second");
});

test("two pipelines that begin at once with the same tables of one database: one is refused, and has made nothing", async () => {
  // Another pipeline has made the schema.
  await using replication = await startReplication({
    schema: `${SCHEMA}; create table u (id int)`,
    rows: "insert into t values (1, 'a')",
    config: "tables: { exclude: [public.t] }",
  });
  await replication.caughtUp();
  const { source, target } = replication;
  const names = [`${source.name}_one`, `${source.name}_two`] as const;
  const urls = [target.url, target.url.replace("127.0.0.1", "localhost")];
  const config = testConfig(
    source.url,
    Object.fromEntries(names.map((name, index) => [name, urls[index] as string])),
    "tables: { exclude: [public.u] }",
  );
  const door = await target.connect();
  await door.query("begin; lock table erserver.pipeline in share mode");
  await using first = runPipeline(config, names[0]);
  await using second = runPipeline(config, names[1]);
  const waiting = async (): Promise<boolean> =>
    (
      await target.query(
        "select from pg_locks l join pg_stat_activity a using (pid) where not granted and datname = current_database()",
      )
    ).length === 2;
  await until(waiting, { what: "both to be about to register" });
  await door.query("commit");
  const lost = async (running: RunningPipeline): Promise<RunningPipeline> =>
    running.finished.then(
      () => running,
      () => running,
    );
  const loser = await Promise.race([lost(first), lost(second)]);
  const winner = loser === first ? second : first;
  await expectStopped(loser, { code: "ERS-412", names: "public.t", remedy: winner.pipeline.status.name });
  await caughtUp(source, winner);
  await source.query("insert into t values (2, 'b')");
  await caughtUp(source, winner);
  await expectEqualTables(source.url, target.url, ["public.t"]);
  expect((await ourObjects(source.url)).join()).not.toContain(loser.pipeline.status.name);
  expect(await target.query("select from erserver.pipeline")).toHaveLength(2);
});

test("a configuration that selects no table is refused", async () => {
  await using replication = await startReplication({
    schema: SCHEMA,
    config: "tables: { include: [nowhere.*] }",
  });
  await expectStopped(replication.running, { code: "ERS-306", names: "", remedy: "Correct `tables`" });
});

test("verify: two at once take turns, and one that was broken off does not hinder the next", async () => {
  await using replication = await startReplication({
    schema: SCHEMA,
    rows: "insert into t select i, 'v' from generate_series(1, 100) i",
  });
  await replication.caughtUp();
  const options = optionsOf(replication);
  const open = await replication.source.connect();
  await open.query("begin; insert into t values (0, 'open')");
  const abort = new AbortController();
  const broken = verifyTarget({ ...options, signal: abort.signal });
  const outcome = broken.then(
    () => "ended",
    () => "broken off",
  );
  await until(
    async () =>
      (await replication.target.query("select from erserver.pipeline where held_lsn is not null")).length > 0,
    { what: "the applier to stand still" },
  );
  abort.abort();
  expect(await outcome).toBe("broken off");
  await open.query("commit");
  const both = await Promise.all([verifyTarget(options), verifyTarget(options)]);
  for (const { tables } of both)
    expect(tables).toMatchObject([{ table: "public.t", equal: true, sourceRows: 101 }]);
  await replication.expectEqual();
});

test("a position that somebody else moves is noticed before anything is written over it", async () => {
  await using replication = await startReplication({ schema: SCHEMA });
  await replication.caughtUp();
  const { source, target } = replication;
  const [before] = await target.query<{ lsn: string }>("select lsn::text from erserver.progress");
  await target.query("update erserver.progress set lsn = '0/1'");
  await source.query("insert into t values (1, 'a')");
  await expectStopped(replication.running, { code: "ERS-706", names: source.name, remedy: "one replicator" });
  expect(await target.query("select 1 from t")).toEqual([]);
  await target.query(`update erserver.progress set lsn = '${before?.lsn}'`);
  await replication.restart();
  await replication.expectEqual();
});
