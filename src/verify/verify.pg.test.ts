import { describe, expect, it } from "vitest";
import { startReplication, testLog, THERE } from "../../test/support/pipeline-context.ts";
import { until } from "../../test/support/wait.ts";
import { dropPipeline } from "../pipeline/drop.ts";
import { initPipeline } from "../pipeline/init.ts";
import { readStatus } from "../pipeline/read-status.ts";
import { syncTarget } from "../pipeline/sync.ts";
import { verifyTarget } from "./verify.ts";

const signal = new AbortController().signal;

describe("verify", () => {
  it("finds every table equal at one position while writers go on, and names the one that is not (S8, S41)", async () => {
    await using replication = await startReplication({
      schema:
        "create table a (id int primary key, v int); create table b (id int primary key, v text); create table c (v text); alter table c replica identity full",
      rows: "insert into a select i, i from generate_series(1, 2000) i; insert into b select i, 'x' || i from generate_series(1, 500) i; insert into c values ('x'), ('x'), (null)",
    });
    await replication.caughtUp();
    const { source, target, config } = replication;
    const options = {
      config,
      target: config.targets[0] as (typeof config.targets)[number],
      log: testLog(),
      signal,
    };
    const writing = new AbortController();
    const writer = (async () => {
      while (!writing.signal.aborted)
        await source.query(
          "begin; update a set v = v + 1 where id % 10 = 0; update b set v = v || '.' where id = 1; commit",
        );
    })();
    for (let round = 0; round < 2; round++) {
      const { tables } = await verifyTarget(options);
      expect(tables.map(({ table, equal }) => [table, equal])).toEqual([
        ["public.a", true],
        ["public.b", true],
        ["public.c", true],
      ]);
    }
    await target.query("delete from b where id = 7; update a set v = -1 where id = 3");
    const different = await verifyTarget(options);
    writing.abort();
    await writer;
    expect(different.tables.filter(({ equal }) => !equal).map(({ table }) => table)).toEqual([
      "public.a",
      "public.b",
    ]);
    expect(different.tables.find(({ table }) => table === "public.b")).toMatchObject({
      sourceRows: 500,
      targetRows: 499,
    });
    expect(await target.query("select 1 from erserver.pipeline where hold_lsn is not null")).toEqual([]);
  }, 180_000);

  it("names a column whose type has changed, and compares no table that is altered before it gets to it", async () => {
    await using replication = await startReplication({
      sourceSchema: "create table t (id int primary key, k int); create table other (id int primary key)",
      targetSchema:
        "create table t (id int primary key, k int, x int); create table other (id int primary key)",
      rows: "insert into t select i, i from generate_series(1, 10) i",
    });
    await replication.caughtUp();
    const { source, target, config } = replication;
    const options = {
      config,
      target: config.targets[0] as (typeof config.targets)[number],
      log: testLog(),
      signal,
    };
    const holdSlots = await source.connect();
    await holdSlots.query("begin; insert into other values (1)");
    const verification = verifyTarget(options);
    verification.catch(() => {});
    await until(
      async () =>
        (
          await source.query(
            "select from pg_replication_slots where slot_name like '%_verify_%' and database = current_database()",
          )
        ).length > 0,
      { what: "the slot of verify to wait" },
    );
    await target.query("update t set x = -1");
    await source.query("alter table t add column x int");
    await holdSlots.query("commit");
    await expect(verification).rejects.toMatchObject({ code: "ERS-802", subject: "public.t" });
    const { tables } = await verifyTarget(options);
    expect(tables.map(({ table, equal }) => [table, equal])).toEqual([
      ["public.other", true],
      ["public.t", false],
    ]);

    await source.query("alter table t alter column k type real");
    await expect(verifyTarget(options)).rejects.toMatchObject({
      code: "ERS-403",
      subject: "public.t.k",
      remedy: expect.stringContaining('ALTER TABLE public.t ALTER COLUMN "k" TYPE real'),
    });
  });

  it("brings the target there itself when no replicator runs; init, sync, status and drop do what they say", async () => {
    await using replication = await startReplication({
      schema: "create table t (id int primary key, v int)",
    });
    await replication.caughtUp();
    await replication.running.stop();
    const { source, target, config } = replication;
    const options = {
      config,
      target: config.targets[0] as (typeof config.targets)[number],
      log: testLog(),
      signal,
    };
    await source.query("insert into t select i, i from generate_series(1, 100) i");
    expect((await initPipeline(options)).changes).toEqual([]);
    const { tables } = await verifyTarget(options);
    expect(tables).toMatchObject([{ table: "public.t", equal: true, sourceRows: 100, targetRows: 100 }]);
    await source.query("update t set v = 0; delete from t where id = 1");
    expect(await syncTarget(options)).toMatchObject({
      transactions: 1,
      rows: 101,
      waitedForOther: false,
      copied: false,
    });
    expect(await syncTarget(options)).toMatchObject({ transactions: 0, rows: 0 });
    const [stopped] = await readStatus(config);
    expect(stopped).toMatchObject({
      state: "stopped",
      running: false,
      error: undefined,
      tables: { total: 1, copied: 1 },
    });
    await replication.restart();
    await replication.caughtUp();
    expect(await syncTarget(options)).toMatchObject({ waitedForOther: true });
    const [streaming] = await readStatus(config);
    expect(streaming).toMatchObject({ state: THERE, running: true });
    await expect(dropPipeline(options)).rejects.toMatchObject({ code: "ERS-508" });
    await replication.running.stop();
    expect((await dropPipeline(options)).dropped).toHaveLength(5);
    expect(await dropPipeline(options)).toEqual({ dropped: [], left: [] });
    expect(await target.query("select 1 from pg_namespace where nspname = 'erserver'")).toEqual([]);
    expect(await source.query("select 1 from pg_publication")).toEqual([]);
  });
});
