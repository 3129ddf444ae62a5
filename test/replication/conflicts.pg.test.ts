import { describe, expect, test } from "vitest";
import { testMajor } from "../support/clusters.ts";
import { type Replication, startReplication } from "../support/pipeline-context.ts";

async function stopped(replication: Replication): Promise<unknown> {
  return replication.running.finished.then(
    () => "it ended",
    (error: unknown) => error,
  );
}

const SCHEMA = `create table t (id int primary key, code text unique, v text, big text); alter table t alter big set storage external;
  create table pair (a int, "B b" text, v int, primary key (a, "B b")); create table bag (a int, b text); alter table bag replica identity full`;
const ROWS = `insert into t select i, 'c' || i, 'v', repeat('x', 9000) from generate_series(1, 9) i; insert into pair select i, 'b' || i, i from generate_series(1, 9) i; insert into bag select i, 'b' from generate_series(1, 9) i`;

describe("conflicts", () => {
  test("source-wins: the target becomes as the source, and each conflict is counted and recorded with its key and position", async () => {
    await using replication = await startReplication({ schema: SCHEMA, rows: ROWS });
    await replication.caughtUp();
    const { source, target } = replication;
    await target.query(
      `insert into t values (20, 'c20', 'of the target'); delete from pair where a in (1, 2); delete from bag where a = 1; update bag set b = 'changed on the target' where a = 2`,
    );
    await source.query(
      "begin; insert into t values (20, 'new', 'of the source', 'b'); insert into t values (21, 'c21', 'no conflict'); commit",
    );
    await source.query(
      `update pair set v = 100 where a = 1; delete from pair where a = 2; delete from bag where a = 1`,
    );
    await source.query(`update bag set b = 'c' where a = 2`);
    await replication.caughtUp();
    await target.query("delete from bag where b = 'changed on the target'");
    await replication.expectEqual();
    const conflicts = await target.query(
      "select schema_name, table_name, kind, key, resolution, commit_lsn > '0/0' and commit_time > now() - interval '1 hour' and xid > 0 as placed from erserver.conflict order by id",
    );
    const entry = (table: string, kind: string, key: object, resolution: string): object => ({
      schema_name: "public",
      table_name: table,
      kind,
      key,
      resolution,
      placed: true,
    });
    expect(conflicts).toEqual([
      entry("t", "insert_exists", { id: "20" }, "overwritten"),
      entry("pair", "update_missing", { a: "1", "B b": "b1" }, "inserted"),
      entry("pair", "delete_missing", { a: "2", "B b": "b2" }, "nothing to delete"),
      entry("bag", "delete_missing", { a: "1", b: "b" }, "nothing to delete"),
      entry("bag", "update_missing", { a: "2", b: "b" }, "inserted"),
    ]);
    expect(await target.query("select conflicts::int from erserver.progress")).toEqual([{ conflicts: 5 }]);
  });

  test("a conflict inside a large transaction and a large group leaves every other change as it was", async () => {
    await using replication = await startReplication({
      schema: SCHEMA,
      rows: ROWS,
      config: "apply: { group: { bytes: 64kB } }",
    });
    await replication.caughtUp();
    const { source, target } = replication;
    await target.query("insert into t values (5000, 'x', 'of the target'); delete from t where id = 7");
    await source.query(
      `begin; insert into t select i, 'c' || i, 'v' from generate_series(1000, 9000) i; update t set v = 'w', big = 'b' where id % 7 = 0; ${testMajor("source") >= 11 ? "truncate" : "delete from"} bag; insert into bag values (1, 'z'); commit`,
    );
    await replication.expectEqual();
    expect(await target.query("select kind, key from erserver.conflict order by id")).toEqual([
      { kind: "insert_exists", key: { id: "5000" } },
      { kind: "update_missing", key: { id: "7" } },
    ]);
    await replication.running.stop();
    await target.query("delete from pair where a = 3");
    for (let i = 0; i < 50; i++)
      await source.query(`update pair set v = v + 1; update t set v = 'u${i}' where id < 3`);
    await replication.restart();
    await replication.expectEqual();
    expect(
      await target.query(
        "select count(*)::int as n from erserver.conflict where kind = 'update_missing' and table_name = 'pair'",
      ),
    ).toEqual([{ n: 1 }]);
  });

  test("stop: the first conflict stops with the row's key, nothing of its group is applied, and it goes on once mended", async () => {
    await using replication = await startReplication({
      schema: SCHEMA,
      rows: ROWS,
      config: "apply: { conflict: stop }",
    });
    await replication.caughtUp();
    const { source, target } = replication;
    await target.query("insert into pair values (50, 'x', 0)");
    await source.query(
      "begin; insert into t values (30, 'c30', 'with it'); insert into pair values (50, 'x', 5); commit",
    );
    expect(await stopped(replication)).toMatchObject({
      code: "ERS-703",
      subject: "public.pair",
      detail: expect.stringMatching(/"a": "50"/),
      message: expect.stringMatching(/insert_exists.*transaction \d+, committed at/),
    });
    expect(await target.query("select 1 from t where id = 30")).toEqual([]);
    expect(await target.query("select 1 from erserver.conflict")).toEqual([]);
    await target.query("delete from pair where a = 50");
    await replication.restart();
    await replication.expectEqual();
    for (const [mine, theirs, mend] of [
      [
        "delete from pair where a = 2",
        "update pair set v = 0 where a = 2",
        "insert into pair values (2, 'b2', 2)",
      ],
      [
        "delete from pair where a = 3",
        "delete from pair where a = 3",
        "insert into pair values (3, 'b3', 3)",
      ],
    ] as const) {
      await target.query(mine);
      await source.query(theirs);
      expect(await stopped(replication)).toMatchObject({ code: "ERS-703" });
      await target.query(mend);
      await replication.restart();
      await replication.expectEqual();
    }
  });

  test("what cannot be decided stops and names the key: a second unique key, a missing row that was not sent whole, a key twice", async () => {
    await using replication = await startReplication({
      schema: `${SCHEMA}; create table twice (id int primary key, v text)`,
      rows: `${ROWS}; insert into twice values (1, 'a'), (2, 'b')`,
      targetSchema: "alter table twice drop constraint twice_pkey",
    });
    await replication.caughtUp();
    const { source, target } = replication;
    const cases: { target: string; source: string; error: object; mend: string }[] = [
      {
        target: "insert into t values (100, 'taken', 'x')",
        source: "insert into t values (101, 'taken', 'y')",
        error: {
          code: "ERS-701",
          subject: "public.t",
          detail: expect.stringContaining('"id": "101"'),
          message: expect.stringContaining("t_code_key"),
        },
        mend: "delete from t where id = 100",
      },
      {
        target: "update t set code = 'moved' where id = 2; insert into t values (102, 'update', 'x')",
        source: "update t set code = 'update' where id = 1",
        error: { code: "ERS-701", detail: expect.stringContaining('"id": "1"') },
        mend: "delete from t where id = 102; update t set code = 'c2' where id = 2",
      },
      {
        target: "delete from t where id = 4",
        source: "update t set v = 'w' where id = 4",
        error: { code: "ERS-702", detail: expect.stringContaining('"id": "4"') },
        mend: "insert into t values (4, 'c4', 'v', repeat('x', 9000))",
      },
      {
        target: "insert into twice values (1, 'second')",
        source: "update twice set v = 'c' where id = 1",
        error: { code: "ERS-703", detail: expect.stringContaining('"id": "1"') },
        mend: "delete from twice where v = 'second'",
      },
      {
        target: "alter table pair add check (v <> 77)",
        source: "update pair set v = 77 where a = 5",
        error: { code: "ERS-701", message: expect.stringContaining("pair_v_check") },
        mend: "alter table pair drop constraint pair_v_check",
      },
    ];
    for (const { target: mine, source: theirs, error, mend } of cases) {
      await target.query(mine);
      await source.query(theirs);
      expect(await stopped(replication)).toMatchObject(error);
      await target.query(mend);
      await replication.restart();
      await replication.expectEqual();
    }
  });
});
