import { describe, expect, test } from "vitest";
import { createLogger } from "../../src/observability/log.ts";
import { dropPipeline } from "../../src/pipeline/drop.ts";
import { readStatus } from "../../src/pipeline/read-status.ts";
import { syncTarget } from "../../src/pipeline/sync.ts";
import { verifyTarget } from "../../src/verify/verify.ts";
import { freshDatabase, sharedCluster, testMajor } from "../support/clusters.ts";
import { expectEqualTables } from "../support/compare.ts";
import { caughtUp, runPipeline, startReplication, testConfig, testLog } from "../support/pipeline-context.ts";
import { until } from "../support/wait.ts";

const signal = new AbortController().signal;

const TRIGGERS = "capture: trigger";

const OBJECTS = `select (select count(*)::int from pg_trigger where tgname like 'erserver%') as triggers,
  (select count(*)::int from pg_namespace where nspname = 'erserver') as schemas`;

describe("replication by triggers", () => {
  test("S14, S45, T5: a role that may only read, make triggers and a schema of its own gets by; auto says why", async () => {
    await using source = await freshDatabase(sharedCluster("source"));
    await using target = await freshDatabase(sharedCluster("target"));
    const schema = "create table t (id int primary key, v text); create table u (id int primary key)";
    await source.query(`${schema}; insert into t select i, 'old' from generate_series(1, 1000) i`);
    await target.query(schema);
    const role = `pma_${process.pid}_${Date.now()}`;
    await source.query(
      `create role ${role} login; grant create on database "${source.name}" to ${role}; grant select, trigger on t, u to ${role}`,
    );
    const lines: string[] = [];
    const log = createLogger({ level: "warn", write: (line) => lines.push(line) });
    const config = testConfig(source.server.url(source.name, role), { [source.name]: target.url });
    const options = { config, target: config.targets[0]!, log: testLog(), signal };
    {
      await using running = runPipeline({ ...config, capture: "auto" }, source.name, { log });
      await until(() => running.pipeline.status.state === "streaming", { what: "the first copy" });
      await source.query(
        "insert into t values (2000, 'new'); update t set v = 'x' where id < 10; delete from t where id = 500; insert into u values (1)",
      );
      await until(async () => (await target.query("select from u")).length === 1, { what: "the changes" });
    }
    await expectEqualTables(source.url, target.url);
    expect(lines.join("\n")).toMatch(
      /recorded by triggers, because they cannot be had from the WAL.*may not replicate/,
    );
    await expect(syncTarget({ ...options, config: { ...config, capture: "wal" } })).rejects.toMatchObject({
      code: "ERS-411",
    });

    await source.query("truncate t; insert into t values (7, 'after')");
    const synced = await syncTarget({ ...options, config: { ...config, capture: "auto" } });
    expect(synced).toMatchObject({ transactions: 1, copied: false });
    await expectEqualTables(source.url, target.url);
    const dropped = await dropPipeline(options);
    expect(dropped.left).toEqual([]);
    expect(dropped.dropped.join("; ")).toMatch(/triggers on 2 tables of the source/);
    expect(await source.query("select from pg_trigger where tgname like 'erserver%'")).toEqual([]);
    await source.query(`insert into t values (8, 'free'); drop owned by ${role}; drop role ${role}`);
  });

  test("S33, S38, S40: sync, status, verify and drop work on it, and nothing is left behind", async () => {
    await using replication = await startReplication({
      schema: "create table t (id int primary key, v int)",
      rows: "insert into t select i, 0 from generate_series(1, 500) i",
      config: TRIGGERS,
    });
    const { source, target, config } = replication;
    await replication.expectEqual();
    const options = { config, target: config.targets[0]!, log: testLog(), signal };

    // While writers and the replicator go on.
    const writing = new AbortController();
    const writer = (async () => {
      while (!writing.signal.aborted)
        await source.query(
          "update t set v = v + 1 where id % 7 = 0; delete from t where id = 3; insert into t values (3, 1)",
        );
    })();
    try {
      for (let round = 0; round < 2; round++)
        expect((await verifyTarget(options)).tables).toMatchObject([{ table: "public.t", equal: true }]);
    } finally {
      writing.abort();
      await writer;
    }
    await replication.expectEqual();
    const [status] = await readStatus(config);
    expect(status).toMatchObject({
      state: "streaming",
      running: true,
      capture: "trigger",
      lagSeconds: 0,
      slot: undefined,
    });

    await replication.running.stop();
    expect(await syncTarget(options)).toMatchObject({ rows: 0 });
    await source.query("update t set v = -1 where id <= 20");
    const [behind] = await readStatus(config);
    expect(behind?.lagSeconds).toBeGreaterThan(0);
    expect(await syncTarget(options)).toMatchObject({ transactions: 1, rows: 20 });
    await source.query("delete from t where id > 100");
    expect((await verifyTarget(options)).tables).toMatchObject([
      { equal: true, sourceRows: 100, targetRows: 100 },
    ]);
    await target.query("update t set v = 99 where id = 1");
    expect((await verifyTarget(options)).tables).toMatchObject([{ equal: false }]);
    await dropPipeline(options);
    expect(await source.query(OBJECTS)).toEqual([{ triggers: 0, schemas: 0 }]);
    await source.query("insert into t values (1000, 1); truncate t");
  });

  test("T10: a second target joins later; the log keeps what the slowest misses, and no more", async () => {
    await using source = await freshDatabase(sharedCluster("source"));
    await using london = await freshDatabase(sharedCluster("target"));
    await using tokyo = await freshDatabase(sharedCluster("target"));
    const schema = "create table t (id int primary key, v int)";
    for (const database of [source, london, tokyo]) await database.query(schema);
    await source.query("insert into t select i, 0 from generate_series(1, 300) i");
    const [first, second] = [`${source.name}_l`, `${source.name}_t`];
    const config = testConfig(source.url, { [first]: london.url, [second]: tokyo.url }, TRIGGERS);
    await using running = runPipeline(config, first);
    await caughtUp(source, running);
    await source.query("update t set v = 1");
    await caughtUp(source, running);
    await expectEqualTables(source.url, london.url);
    const later = runPipeline(config, second);
    await caughtUp(source, later);
    await expectEqualTables(source.url, tokyo.url);
    await later.stop();
    const logged = async (): Promise<number> =>
      (await source.query<{ n: number }>("select count(*)::int as n from erserver.log_1"))[0]!.n;
    // The one that is away misses 600 rows of the log; the other one has them long since.
    await source.query("update t set v = 2");
    for (let round = 0; round < 30; round++) {
      await source.query("update t set v = v where id = 1");
      await caughtUp(source, running);
    }
    await until(async () => (await logged()) >= 600 && (await logged()) <= 660, {
      what: "the log of one that is away",
    });
    await using back = runPipeline(config, second);
    await caughtUp(source, back);
    await expectEqualTables(source.url, tokyo.url);
    await until(
      async () => {
        await source.query("update t set v = v + 1 where id = 2");
        return (await logged()) < 20;
      },
      { what: "the log to be cleaned", interval: 200 },
    );
  });

  test("what was not recorded is told, never left out: triggers that are dropped or disabled, a target that the source has forgotten", async () => {
    await using replication = await startReplication({
      schema: "create table t (id int primary key, v int); create table u (id int primary key)",
      config: TRIGGERS,
    });
    const { source } = replication;
    await source.query("insert into t values (1, 1)");
    await replication.expectEqual();
    await source.query("alter table t disable trigger erserver_update; update t set v = 2");
    await expect(replication.running.finished).rejects.toMatchObject({
      code: "ERS-505",
      subject: "public.t",
    });
    await replication.restart();
    await expect(replication.running.finished).rejects.toMatchObject({ code: "ERS-505" });
    await source.query("delete from erserver.consumer");
    await replication.restart();
    await expect(replication.running.finished).rejects.toMatchObject({ code: "ERS-503" });
  });

  test("a target that was set back to an older state is told, and does not go on without what lies between", async () => {
    await using source = await freshDatabase(sharedCluster("source"));
    await using target = await freshDatabase(sharedCluster("target"));
    for (const side of [source, target]) await side.query("create table t (id int primary key)");
    const config = testConfig(source.url, { [source.name]: target.url }, TRIGGERS);
    const options = { config, target: config.targets[0]!, log: testLog(), signal };
    await syncTarget(options);
    const [shown] = await target.query("select lsn, snapshot from erserver.progress");
    await source.query("insert into t values (1)");
    await syncTarget(options);
    // As a backup of the target has it.
    await target.query("update erserver.progress set lsn = $1, snapshot = $2", Object.values(shown!));
    await target.query("truncate t");
    await expect(syncTarget(options)).rejects.toMatchObject({ code: "ERS-503" });
  });

  test("T11: what a dump has brought along is forgotten, and the tables are recorded anew", async () => {
    await using replication = await startReplication({
      schema: "create table t (id int primary key, v int)",
      config: TRIGGERS,
    });
    const { source, config } = replication;
    await replication.expectEqual();
    await replication.running.stop();
    // As in a database of another cluster: its transactions have other numbers.
    await source.query("update erserver.capture_origin set system = '1'; insert into t values (1, 1)");
    await replication.restart();
    await expect(replication.running.finished).rejects.toMatchObject({ code: "ERS-503" });
    const options = { config, target: config.targets[0]!, log: testLog(), signal };
    await dropPipeline(options);
    await replication.restart();
    await replication.expectEqual();
    await source.query("update t set v = 2");
    await replication.expectEqual();
  });

  test("a column that the source gains is asked for on the target, and what was written to it meanwhile comes", async () => {
    await using replication = await startReplication({
      schema: "create table t (id int primary key, v int)",
      rows: "insert into t select i, i from generate_series(1, 10) i",
      config: TRIGGERS,
    });
    const { source, target } = replication;
    await replication.expectEqual();
    await source.query(
      "alter table t add column w text default 'd'; update t set w = 'changed' where id = 5; insert into t values (11, 11, 'new')",
    );
    await expect(replication.running.finished).rejects.toMatchObject({ code: "ERS-402" });
    await target.query("alter table t add column w text default 'd'");
    await replication.restart();
    await replication.expectEqual();
    // The key by another name, and of a wider type.
    await replication.running.stop();
    for (const database of [source, target])
      await database.query("alter table t rename v to value; alter table t alter id type bigint");
    await replication.restart();
    await source.query("insert into t values (5000000000, 1); update t set value = 7 where id = 1");
    await replication.expectEqual();
  });

  // Before 11 a partitioned table has no key of its own.
  test.skipIf(testMajor("source") < 11)("a partition that joins with rows brings them along", async () => {
    await using replication = await startReplication({
      schema: `create table p (id int, v text, primary key (id)) partition by range (id); create table p1 partition of p for values from (0) to (100)`,
      rows: "insert into p select i, 'x' from generate_series(1, 50) i",
      config: TRIGGERS,
    });
    const { source, target } = replication;
    await replication.expectEqual();
    await target.query("create table p2 partition of p for values from (100) to (200)");
    await source.query(
      "create table p2 (id int primary key, v text); insert into p2 select i, 'y' from generate_series(100, 120) i; alter table p attach partition p2 for values from (100) to (200)",
    );
    await until(async () => (await target.query("select from p2")).length === 21, {
      what: "the rows of the partition",
    });
    await source.query(
      "insert into p2 values (150, 'direct'); update p set v = 'z' where id > 110; truncate p1",
    );
    await replication.expectEqual();
  });

  test.skipIf(testMajor("source") < 11)(
    "a partition that the role may not read is named: TRUNCATE of it would fail for whoever runs it",
    async () => {
      await using source = await freshDatabase(sharedCluster("source"));
      await using target = await freshDatabase(sharedCluster("target"));
      const schema =
        "create table p (id int primary key) partition by range (id); create table p1 partition of p for values from (0) to (100)";
      for (const database of [source, target]) await database.query(schema);
      const role = `leaf_${process.pid}_${Date.now()}`;
      await source.query(
        `create role ${role} login; grant create on database "${source.name}" to ${role}; grant select, trigger on p to ${role}; grant trigger on p1 to ${role}; insert into p values (1)`,
      );
      const config = testConfig(
        source.server.url(source.name, role),
        { [source.name]: target.url },
        TRIGGERS,
      );
      await expect(runPipeline(config, source.name).finished).rejects.toMatchObject({
        code: "ERS-304",
        subject: "public.p1",
        remedy: expect.stringContaining(`GRANT SELECT ON public.p1 TO "${role}"`),
      });
      await source.query(`truncate p1; insert into p values (2); grant select on p1 to ${role}`);
      {
        await using running = runPipeline(config, source.name);
        await caughtUp(source, running);
        await source.query("truncate p1; insert into p values (3)");
        await caughtUp(source, running);
      }
      await expectEqualTables(source.url, target.url);
      await source.query(`drop owned by ${role} cascade; drop role ${role}`);
    },
  );

  test("a table without a key is refused by name, or replaced whole with all else (T6)", async () => {
    const schema = "create table t (id int primary key); create table bag (v text)";
    await using refused = await startReplication({
      schema,
      config: TRIGGERS.concat("\ntables: { without_key: stop }"),
    });
    await expect(
      runPipeline(
        { ...refused.config, tables: { ...refused.config.tables, withoutKey: "stop" } },
        refused.config.targets[0]!.name,
      ).finished,
    ).rejects.toMatchObject({ code: "ERS-704", subject: "public.bag" });
    await using replication = await startReplication({
      schema,
      rows: "insert into bag values ('x'), ('x'), (null)",
      config: TRIGGERS.concat("\ntables: { without_key: refresh }"),
    });
    await replication.expectEqual();
    await replication.source.query(
      "begin; insert into t values (1); delete from bag where v is null; insert into bag values ('y'), ('x'); commit",
    );
    await replication.expectEqual();
    await replication.source.query("update bag set v = 'z'");
    await replication.expectEqual();
    await replication.source.query("truncate bag");
    await replication.expectEqual();
    expect(
      await replication.target.query("select replays::int, conflicts::int from erserver.progress"),
    ).toEqual([{ replays: 0, conflicts: 0 }]);
  });
});
