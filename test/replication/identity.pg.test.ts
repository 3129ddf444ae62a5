import { describe, expect, test } from "vitest";
import { createLogger } from "../../src/observability/log.ts";
import { initPipeline } from "../../src/pipeline/init.ts";
import { commandOptions } from "../support/bad-input.ts";
import { startReplication } from "../support/pipeline-context.ts";

const noConflicts = { conflicts: "0" };

describe("row identity", () => {
  test("primary key, composite key, replica identity index and REPLICA IDENTITY FULL find exactly one row", async () => {
    await using replication = await startReplication({
      schema: `
        create table simple (id bigint primary key, v text);
        create table composite (b text, v numeric, a int, c date, primary key (a, b, c));
        create table indexed (id int not null, code text not null, v text, "Other" int not null); create unique index indexed_code on indexed (code, "Other");
        alter table indexed replica identity using index indexed_code;
        create table bag (a int, b text, c numeric, d float8, e jsonb, f timestamptz, g char(5), h int[], i json, j point, k xml); alter table bag replica identity full;
        create table full_with_key (id int primary key, v text, w json); alter table full_with_key replica identity full;
        create table full_key_change (id int primary key, big text, v int); alter table full_key_change alter big set storage external; alter table full_key_change replica identity full`,
      // The identity of the target is its own: with a key or without one.
      targetSchema:
        "alter table full_with_key drop constraint full_with_key_pkey; create unique index on bag (a) where a > 1000",
      rows: `insert into simple select i, 'v' || i from generate_series(1, 20) i;
        insert into composite select i % 3 || 'b', i, i, date '2020-01-01' + i from generate_series(1, 20) i;
        insert into indexed select i, 'c' || i % 5, 'v', i from generate_series(1, 20) i;
        insert into bag select i % 4, nullif('b' || i % 2, 'b1'), 1.50, 'NaN', '{"b":1,"a":[1, 2]}', '2020-01-01 00:00:00.123456+00', 'ab', '{1,null,3}', '{"b" : 1}', '(0.1,-0)', '<a/>' from generate_series(1, 16) i;
        insert into bag select from generate_series(1, 4); insert into full_with_key select i, i, '{}' from generate_series(1, 10) i;
        insert into full_key_change select i, repeat(md5(i::text), 300), i from generate_series(1, 5) i`,
    });
    const { source, target } = replication;
    const work = async (): Promise<void> => {
      await source.query(
        "update simple set v = v || '!' where id % 2 = 0; update simple set id = id + 100 where id < 5; delete from simple where id = 6",
      );
      await source.query(
        "update composite set v = -v where a > 10; update composite set c = c + 1, b = b || 'x' where a < 4; delete from composite where a = 7",
      );
      await source.query(
        `update indexed set v = 'w' where id < 9; update indexed set code = code || '-', id = 0 where "Other" > 15; delete from indexed where "Other" = 3; update indexed set "Other" = "Other" + 50 where id = 1`,
      );
      await source.query(
        "delete from bag where ctid = (select ctid from bag where a = 1 limit 1); update bag set c = 1.5 where ctid = (select ctid from bag where a = 2 limit 1)",
      );
      await source.query(
        "update bag set c = c + 0.00, h = '{}' where a = 3; delete from bag where ctid = (select ctid from bag where a is null and b is null limit 1)",
      );
      await source.query(
        "update bag set b = 'was null' where ctid = (select ctid from bag where b is null and a = 0 limit 1); insert into bag (d) values ('-0'), ('0'); update bag set d = 1 where d::text = '-0'",
      );
      await source.query(
        "update full_with_key set v = 'u' where id < 5; update full_with_key set id = id + 20 where id in (1, 2); delete from full_with_key where id = 9",
      );
      await source.query(
        "update full_key_change set v = v + 1; update full_key_change set id = id + 10 where id = 1; delete from full_key_change where id = 2",
      );
    };
    await work();
    await replication.expectEqual();
    await replication.running.stop();
    await source.query(
      "insert into simple values (6, 'again'); update simple set id = id - 100 where id > 100; update full_with_key set id = id - 20 where id > 20; update full_key_change set id = 1 where id = 11",
    );
    await work();
    await replication.restart();
    await replication.expectEqual();
    expect(await target.query("select conflicts from erserver.progress")).toEqual([noConflicts]);
  });

  test("a table without columns: of its rows, which are all equal, a deleted one goes", async () => {
    await using replication = await startReplication({
      schema: "create table z (); alter table z replica identity full",
      rows: "insert into z select from generate_series(1, 3)",
    });
    const { source, target } = replication;
    await replication.caughtUp();
    await source.query(
      "delete from z where ctid = (select ctid from z limit 1); insert into z default values; insert into z default values",
    );
    await replication.caughtUp();
    expect(await target.query("select count(*)::int from z")).toEqual([{ count: 4 }]);
    await source.query("delete from z");
    await replication.caughtUp();
    expect(await target.query("select count(*)::int from z")).toEqual([{ count: 0 }]);
    expect(await target.query("select conflicts from erserver.progress")).toEqual([noConflicts]);
  });

  test("REPLICA IDENTITY FULL on the source meets a key of the target", async () => {
    await using replication = await startReplication({
      sourceSchema:
        "create table t (id int not null, v text, w json); alter table t replica identity full; create table u (a int, b int); alter table u replica identity full",
      targetSchema:
        "create table t (id int primary key, v text, w json); create table u (a int not null, b int not null, unique (b, a))",
      rows: `insert into t select i, 'v', '{"x" :1}' from generate_series(1, 10) i; insert into u values (1, 1), (1, 2), (2, 1)`,
    });
    await replication.source.query(
      "update t set v = null where id < 5; update t set id = id + 50 where id > 8; delete from t where id = 3; update u set a = 3 where b = 2; delete from u where a = 2",
    );
    await replication.expectEqual();
  });

  test("a table without a row identity is reported by name, its UPDATE and DELETE go on on the source, its inserts arrive (T6)", async () => {
    const lines: string[] = [];
    await using replication = await startReplication({
      schema: `create table keyed (id int primary key, v int); create table nokey (v text, n int);
        create table "Nothing" (id int primary key, v text); alter table "Nothing" replica identity nothing`,
      rows: `insert into nokey values ('a', 1), ('a', 1), (null, null); insert into keyed values (1, 1); insert into "Nothing" values (1, 'a')`,
      log: createLogger({ level: "warn", write: (line) => lines.push(line) }),
    });
    await replication.expectEqual();
    const { source, target } = replication;
    const logged = lines
      .map((line) => JSON.parse(line) as Record<string, string>)
      .filter(({ code }) => code === "ERS-704");
    expect(logged.toSorted((a, b) => (a["msg"]! < b["msg"]! ? -1 : 1))).toEqual(
      ['public."Nothing"', "public.nokey"].map((name) =>
        expect.objectContaining({
          code: "ERS-704",
          msg: `${name} has no row identity: its inserts are replicated, its updates and deletes are not`,
          remedy: expect.stringContaining(`ALTER TABLE ${name} REPLICA IDENTITY FULL;`),
        }),
      ),
    );

    await source.query(
      `insert into nokey values ('b', 2); insert into "Nothing" values (2, 'b'); update keyed set v = 2`,
    );
    await replication.expectEqual();
    await source.query(
      `update nokey set v = 'changed'; delete from nokey where n = 2; update "Nothing" set v = 'c'; delete from "Nothing" where id = 2; insert into nokey values ('last', 9)`,
    );
    await replication.expectEqual(["public.keyed"]);
    expect(await source.query("select v, n from nokey order by n")).toEqual([
      { v: "changed", n: 1 },
      { v: "changed", n: 1 },
      { v: "last", n: 9 },
      { v: "changed", n: null },
    ]);
    expect(await source.query('select * from "Nothing"')).toEqual([{ id: 1, v: "c" }]);
    expect(await target.query(`select v from nokey order by v nulls last`)).toEqual([
      { v: "a" },
      { v: "a" },
      { v: "b" },
      { v: "last" },
      { v: null },
    ]);
    expect(await target.query(`select v from "Nothing" order by id`)).toEqual([{ v: "a" }, { v: "b" }]);

    await replication.running.stop();
    const { problems } = await initPipeline(commandOptions(replication.config));
    expect(problems.map(({ message }) => message)).toEqual(
      expect.arrayContaining(logged.map(({ msg }) => msg)),
    );
  });
});
