import { describe, expect, test } from "vitest";
import { testMajor } from "../support/clusters.ts";
import { type Replication, startReplication } from "../support/pipeline-context.ts";

async function stopped(replication: Replication): Promise<unknown> {
  return replication.running.finished.then(
    () => "it ended",
    (error: unknown) => error,
  );
}

describe("a column is added", () => {
  test("on the source only: it stops, names the column and the remedy, and goes on with nothing lost once the target has it", async () => {
    await using replication = await startReplication({
      schema: "create table t (id int primary key, v text); create table other (id int primary key)",
      rows: "insert into t values (1, 'a'), (2, 'b')",
    });
    await replication.caughtUp();
    const { source, target } = replication;
    await source.query("insert into t values (3, 'before')");
    await replication.caughtUp();
    await source.query(
      'begin; insert into other values (1); alter table t add column "New" int; update t set "New" = id; insert into other values (2); commit; insert into t values (4, \'d\', 4)',
    );
    const error = await stopped(replication);
    expect(error).toMatchObject({
      code: "ERS-402",
      subject: "public.t.New",
      message: expect.stringContaining('column "New" of public.t'),
      remedy: expect.stringContaining('ALTER TABLE public.t ADD COLUMN "New" integer;'),
    });
    // Nothing of the transaction that needs the column.
    expect(await target.query("select id from t order by id")).toEqual([{ id: 1 }, { id: 2 }, { id: 3 }]);
    expect(await target.query("select 1 from other")).toEqual([]);
    expect(await target.query("select state, error ->> 'code' as code from erserver.pipeline")).toEqual([
      { state: "stopped", code: "ERS-402" },
    ]);
    await replication.restart();
    expect(await stopped(replication)).toMatchObject({ code: "ERS-402" });
    await target.query('alter table t add column "New" int');
    await replication.restart();
    await replication.expectEqual();
    expect(await target.query("select conflicts from erserver.progress")).toEqual([{ conflicts: "0" }]);
  });

  test("on the source only, with a default: the remedy gives old rows the value that they have there", async () => {
    await using replication = await startReplication({
      schema: "create table t (id int primary key)",
      rows: "insert into t values (1), (2)",
    });
    await replication.caughtUp();
    const { source, target } = replication;
    await source.query(
      "alter table t add column n numeric(6,2) default 7.5, add column at timestamptz default now()",
    );
    for (const column of ["n", "at"]) {
      await source.query(`insert into t (id) select max(id) + 1 from t`);
      const error = (await stopped(replication)) as { code: string; remedy: string; subject: string };
      expect(error).toMatchObject({ code: "ERS-402", subject: `public.t.${column}` });
      if (testMajor("source") < 11) {
        // Only its rows know which value they got.
        expect(error.remedy).toContain(
          "Add it to public.t on the target, with the values that old rows have",
        );
        return;
      }
      // What it says, to the letter.
      await target.query(/ALTER TABLE [^;]*;/.exec(error.remedy)?.[0] ?? "");
      await replication.restart();
    }
    await replication.expectEqual();
  });

  test("on the source only, with a value of its own for each row: the remedy does not invent them", async () => {
    await using replication = await startReplication({
      schema: "create table t (id int primary key)",
      rows: "insert into t values (1), (2)",
    });
    await replication.caughtUp();
    await replication.source.query(
      "alter table t add column r float8 default random(); insert into t values (3)",
    );
    expect(await stopped(replication)).toMatchObject({
      code: "ERS-402",
      remedy: expect.stringContaining("with the values that old rows have on the source"),
    });
  });

  test("on the source only, with `missing_column: ignore`: it goes on without it", async () => {
    await using replication = await startReplication({
      schema: "create table t (id int primary key, v text)",
      rows: "insert into t values (1, 'a')",
      config: "tables: { missing_column: ignore }",
    });
    await replication.caughtUp();
    const { source } = replication;
    await source.query(
      "insert into t values (2, 'b'); alter table t add column w int default 7; update t set w = id, v = 'c' where id = 1; insert into t values (3, 'd', 3); delete from t where id = 2",
    );
    await replication.expectEqual();
    await replication.restart();
    await source.query(
      "update t set w = 0; alter table t replica identity full; update t set v = 'e'; delete from t where id = 3",
    );
    await replication.expectEqual();
  });

  test("on both sides while running, in the middle of a group as well, whatever the order of the columns", async () => {
    await using replication = await startReplication({
      schema: "create table t (id int primary key, v text)",
      rows: "insert into t values (1, 'a')",
    });
    await replication.caughtUp();
    const { source, target } = replication;
    await target.query("alter table t add column w int, add column x text");
    await source.query(
      "update t set v = 'b'; alter table t add column w int default 5; update t set w = id; insert into t values (2, 'c', 2)",
    );
    await replication.expectEqual();
    await replication.running.stop();
    // One group: the rows before and behind each ALTER TABLE.
    await source.query(
      "begin; insert into t values (3, 'd', 3); alter table t add column x text; insert into t values (4, 'e', 4, 'x'); update t set x = 'y' where id = 3; commit",
    );
    await source.query("update t set v = 'f' where id = 1");
    await source.query(
      "insert into t values (5, 'g'); alter table t drop column w; insert into t values (6, 'h', 'x'); update t set v = v || '!'; alter table t add column w int; update t set w = 9 where id < 3",
    );
    await replication.restart();
    await replication.caughtUp();
    // The column that was dropped and made again is empty on the source where the target has kept the old one's values.
    expect(await target.query("select id, v, x from t order by id")).toEqual(
      await source.query("select id, v, x from t order by id"),
    );
    expect(await target.query("select w from t where id < 3 order by id")).toEqual([{ w: 9 }, { w: 9 }]);
  });

  test("on the target only: with a default or NULL it is fine, NOT NULL without a default is refused by name", async () => {
    await using replication = await startReplication({
      schema: "create table t (id int primary key, v text)",
      rows: "insert into t values (1, 'a')",
    });
    await replication.caughtUp();
    const { source, target } = replication;
    await target.query("alter table t add column note text not null default 'n', add column maybe int");
    await source.query("insert into t values (2, 'b'); update t set v = 'c'");
    await replication.expectEqual();
    expect(await target.query("select distinct note, maybe from t")).toEqual([{ note: "n", maybe: null }]);
    await replication.running.stop();
    await target.query("alter table t alter column note drop default");
    await source.query("insert into t values (3, 'c')");
    await replication.restart();
    expect(await stopped(replication)).toMatchObject({ code: "ERS-406", subject: "public.t.note" });
    await target.query("alter table t alter column note set default 'm'");
    await replication.restart();
    await replication.expectEqual();
  });
});

describe("a table changes otherwise", () => {
  test("types widen on both sides, a key is added, a table is renamed away: never wrong data", async () => {
    await using replication = await startReplication({
      schema: "create table t (id int primary key, v int); create table u (id int, v text)",
      rows: "insert into t values (1, 1); insert into u values (1, 'a')",
    });
    await replication.caughtUp();
    const { source, target } = replication;
    await target.query("alter table t alter column v type bigint");
    await source.query(
      "alter table t alter column v type bigint; update t set v = 5000000000; insert into t values (2, -5000000000)",
    );
    await replication.expectEqual();
    await source.query("alter table t alter column v type text; insert into t values (3, 'three')");
    expect(await stopped(replication)).toMatchObject({ code: "ERS-403", subject: "public.t.v" });
    await target.query("alter table t alter column v type text");
    for (const database of [source, target]) await database.query("alter table u add primary key (id)");
    await replication.restart();
    await replication.caughtUp();
    await source.query("update u set v = 'b'; update t set v = 'one' where id = 1");
    await replication.expectEqual();
  });

  test("tables change their names and get them back while it follows: each row arrives where it belongs", async () => {
    await using replication = await startReplication({
      schema: "create table t (id int primary key, v text); create table u (id int primary key, v text)",
      rows: "insert into t values (1, 'a'); insert into u values (1, 'b')",
    });
    await replication.caughtUp();
    const { source } = replication;
    const swap = "alter table t rename to away; alter table u rename to t; alter table away rename to u";
    await source.query(
      `begin; alter table t rename to away; insert into away values (2, 'away'); alter table away rename to t;
       ${swap}; insert into t values (3, 'of u'); update u set v = 'of t'; ${swap}; insert into t values (4, 'back'); commit`,
    );
    await replication.expectEqual();
    await replication.restart();
    await replication.expectEqual();
  });

  test("a column whose bytes mean something else on the target is added while bytes travel: the values arrive right", async () => {
    await using replication = await startReplication({
      schema:
        "create table filler (oid int); drop table filler; create table t (id int primary key); create table named (id int primary key); create type pair as (a int, b int)",
    });
    await replication.caughtUp();
    const { source, target } = replication;
    await target.query(
      "create type mood as enum ('sad', 'ok'); create domain moods as text; alter table t add column c regclass, add column m mood[], add column p pair",
    );
    await source.query(
      "create type mood as enum ('sad', 'ok'); alter table t add column c regclass, add column m mood[], add column p pair; insert into t values (1, 'named', '{ok,null}', '(1,2)')",
    );
    await source.query("insert into t values (2, 't', '{}', null)");
    await replication.expectEqual();
  });

  test("the replica identity changes while running", async () => {
    await using replication = await startReplication({
      schema: "create table t (id int primary key, code text not null unique, v text)",
      rows: "insert into t select i, 'c' || i, 'v' from generate_series(1, 9) i",
    });
    await replication.caughtUp();
    const { source } = replication;
    await source.query(
      "update t set v = '1' where id = 1; alter table t replica identity full; update t set v = '2' where id = 2; update t set id = 30 where id = 3; delete from t where id = 4",
    );
    await source.query(
      "alter table t replica identity using index t_code_key; update t set id = 50, code = 'x' where id = 5; update t set id = 60 where id = 6; alter table t replica identity default; delete from t where id = 60",
    );
    await replication.expectEqual();
  });
});
