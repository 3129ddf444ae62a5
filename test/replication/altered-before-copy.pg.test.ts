import { describe, expect, test } from "vitest";
import { type FreshDatabase, freshDatabase, sharedCluster, testMajor } from "../support/clusters.ts";
import { expectEqualTables } from "../support/compare.ts";
import { caughtUp, runPipeline, startReplication, testConfig } from "../support/pipeline-context.ts";
import { until } from "../support/wait.ts";

/** A slot is not made before every transaction that runs on its server has ended. */
async function holdSlots(source: FreshDatabase): Promise<() => Promise<unknown>> {
  await source.query(
    "create schema if not exists elsewhere; create table if not exists elsewhere.busy (id int)",
  );
  const session = await source.connect();
  await session.query("begin; insert into elsewhere.busy values (1)");
  return () => session.query("rollback");
}

async function slotWaits(source: FreshDatabase, name: string): Promise<void> {
  await until(
    async () =>
      (
        await source.query(
          `select from pg_replication_slots where slot_name like '${name}' and database = current_database() and confirmed_flush_lsn is null`,
        )
      ).length > 0,
    { what: `slot ${name} to wait` },
  );
}

async function slotsOf(source: FreshDatabase): Promise<unknown> {
  return source.query(
    "select slot_name from pg_replication_slots where database = current_database() and slot_name !~ '_bulk_'",
  );
}

const CONFIG = "tables: { exclude: [elsewhere.*] }";

describe("while the slot waits", () => {
  test("what is altered is copied as it is then, from the first slot and for tables that join", async () => {
    await using source = await freshDatabase(sharedCluster("source"));
    await using target = await freshDatabase(sharedCluster("target"));
    await source.query(
      `create table added (id int primary key, v int); create table remade (id int primary key, v int);
       insert into added select i, i from generate_series(1, 1000) i; insert into remade values (1, 1)`,
    );
    await target.query(
      "create table added (id int primary key, v int, x int); create table remade (id int primary key, v int)",
    );
    const config = testConfig(source.url, { [source.name]: target.url }, CONFIG);
    const goOn = await holdSlots(source);
    await using running = runPipeline(config, source.name);
    await slotWaits(source, `erserver_${source.name}`);
    await source.query(
      `alter table added add column x int; update added set x = id; drop table remade; create table remade (v int, id int primary key); insert into remade values (2, 1)`,
    );
    await goOn();
    await caughtUp(source, running);
    await expectEqualTables(source.url, target.url, ["public.added", "public.remade"]);
    expect(await slotsOf(source)).toEqual([{ slot_name: `erserver_${source.name}` }]);
    await running.stop();

    await source.query("create table joined (id int primary key); insert into joined values (1), (2)");
    await target.query("create table joined (id int primary key, x int)");
    const goOnAgain = await holdSlots(source);
    await using again = runPipeline(config, source.name);
    await slotWaits(source, `erserver_${source.name}_copy_%`);
    await source.query("alter table joined add column x int; update joined set x = id");
    await goOnAgain();
    await caughtUp(source, again);
    await expectEqualTables(source.url, target.url, ["public.joined", "public.added"]);
    await until(async () => ((await slotsOf(source)) as unknown[]).length === 1, {
      what: "the slots of the copies to be gone",
    });
  });

  test("what is dropped is copied no more", async () => {
    await using source = await freshDatabase(sharedCluster("source"));
    await using target = await freshDatabase(sharedCluster("target"));
    for (const database of [source, target])
      await database.query(
        "create table lost (id int primary key, v int); create table gone (id int primary key)",
      );
    await source.query("insert into lost values (1, 1); insert into gone values (1)");
    const goOn = await holdSlots(source);
    await using running = runPipeline(
      testConfig(source.url, { [source.name]: target.url }, CONFIG),
      source.name,
    );
    await slotWaits(source, `erserver_${source.name}`);
    await source.query("alter table lost drop column v; drop table gone");
    await goOn();
    await caughtUp(source, running);
    await expectEqualTables(source.url, target.url, ["public.lost"]);
    expect(await target.query("select from gone")).toEqual([]);
  });

  test.each(["source", "target"] as const)(
    "a type that is altered on the %s stops it before a row is copied: its bytes mean something else on the other",
    async (side) => {
      await using source = await freshDatabase(sharedCluster("source"));
      await using target = await freshDatabase(sharedCluster("target"));
      for (const database of [source, target])
        await database.query("create table t (id int primary key, k int)");
      await source.query("insert into t select i, i from generate_series(1, 100) i");
      const config = testConfig(source.url, { [source.name]: target.url }, CONFIG);
      const goOn = await holdSlots(source);
      await using running = runPipeline(config, source.name);
      await slotWaits(source, `erserver_${source.name}`);
      const [altered, other] = side === "source" ? [source, target] : [target, source];
      await altered.query("alter table t alter column k type real");
      await goOn();
      await expect(running.finished).rejects.toMatchObject({ code: "ERS-403", subject: "public.t.k" });
      expect(await target.query("select from t")).toEqual([]);
      await other.query("alter table t alter column k type real");
      await using again = runPipeline(config, source.name);
      await caughtUp(source, again);
      await expectEqualTables(source.url, target.url, ["public.t"]);
    },
  );
});

describe("between the snapshot and the copy", () => {
  /** The largest table comes first and the only job waits with it, in the snapshot. */
  const BIG = "create table big (id int primary key, v text);";
  const ROWS = "insert into big select i, repeat('x', 100) from generate_series(1, 2000) i;";

  async function holdCopy(target: FreshDatabase): Promise<() => Promise<unknown>> {
    const blocker = await target.connect();
    await blocker.query("begin; lock table big in share mode");
    return () => blocker.query("commit");
  }

  const copyWaits = (target: FreshDatabase): Promise<unknown> =>
    until(
      async () =>
        (
          await target.query(
            "select from pg_locks where relation = 'big'::regclass and not granted and mode = 'RowExclusiveLock'",
          )
        ).length > 0,
      { what: "the copy to wait" },
    );

  test("what is altered, and not rewritten, is copied as it is then", async () => {
    await using source = await freshDatabase(sharedCluster("source"));
    await using target = await freshDatabase(sharedCluster("target"));
    await source.query(
      `${BIG} create table swapped (id int primary key, a int, b int); create table added (id int primary key);
       ${ROWS} insert into swapped values (1, 1, 10), (2, 2, 20); insert into added values (1)`,
    );
    await target.query(
      `${BIG} create table swapped (id int primary key, a int, b int); create table added (id int primary key, x int)`,
    );
    const goOn = await holdCopy(target);
    const config = testConfig(source.url, { [source.name]: target.url }, "copy: { jobs: 1 }");
    await using running = runPipeline(config, source.name);
    await copyWaits(target);
    await source.query("update swapped set a = 3 where id = 2");
    await source.query(
      "alter table swapped rename a to c; alter table swapped rename b to a; alter table swapped rename c to b; alter table added add column x int default 7",
    );
    await goOn();
    await caughtUp(source, running);
    await expectEqualTables(source.url, target.url);
    expect(await target.query("select conflicts, replays from erserver.progress")).toEqual([
      { conflicts: "0", replays: "0" },
    ]);
  });

  test("a row that changes before its column's type does comes with the copy: the old type in the stream stops nothing", async () => {
    await using source = await freshDatabase(sharedCluster("source"));
    await using target = await freshDatabase(sharedCluster("target"));
    for (const database of [source, target])
      await database.query(`${BIG} create table retyped (id int primary key, k int)`);
    await source.query(`${ROWS} insert into retyped values (1, 1), (2, 2)`);
    const goOn = await holdCopy(target);
    const config = testConfig(source.url, { [source.name]: target.url }, "copy: { jobs: 1 }");
    await using running = runPipeline(config, source.name);
    await copyWaits(target);
    await source.query("update retyped set k = 3 where id = 2");
    await source.query("alter table retyped alter column k type real");
    await goOn();
    await expect(running.finished).rejects.toMatchObject({ code: "ERS-403", subject: "public.retyped.k" });
    await target.query("alter table retyped alter column k type real");
    await using again = runPipeline(config, source.name);
    await caughtUp(source, again);
    await expectEqualTables(source.url, target.url);
  });
});

describe("a copy that fails says on which side", () => {
  const table = { schema: "create table t (id int primary key)", rows: "insert into t values (0), (1)" };

  // Row filters came with 15.
  test.runIf(testMajor("source") >= 15)("the source", async () => {
    await using replication = await startReplication({
      ...table,
      config: "tables: { include: [{ table: public.t, where: 1 / id > 0 }] }",
    });
    await expect(replication.running.finished).rejects.toMatchObject({
      code: "ERS-701",
      message: expect.stringContaining("the copy of public.t failed on the source: division by zero"),
      remedy: expect.stringContaining("on the source"),
    });
  });

  test("the target", async () => {
    await using replication = await startReplication({
      ...table,
      targetSchema: "alter table t add check (id > 0)",
    });
    await expect(replication.running.finished).rejects.toMatchObject({
      code: "ERS-701",
      message: expect.stringContaining("the copy of public.t failed on the target"),
      remedy: expect.stringContaining("on the target"),
    });
  });
});
