import { describe, expect, test } from "vitest";
import { testMajor } from "../support/clusters.ts";
import { startReplication } from "../support/pipeline-context.ts";
import { arraysOf, expectFaithful, sql, type ValueType } from "./value-history.ts";

const hstore = (schema: string): ValueType => ({
  type: `${schema}.hstore`,
  values: [
    "",
    "a=>1, b=>NULL",
    '"a b"=>"\\"\\\\,=>", ""=>""',
    "é=>🐘",
    sql(`${schema}.hstore('k', repeat('v', 5000))`),
  ],
});

const citext = (schema: string): ValueType => ({
  type: `${schema}.citext`,
  values: ["", "Straße", "it's", "a\tb", "Ünï", sql("repeat('Xy', 1000)")],
  alike: ["IT'S", "STRAßE", "A\tB"],
});

describe.each(["public", `"My Extensions"`])("types of extensions in schema %s", (schema) => {
  const prelude = `create schema if not exists "My Extensions"; create extension hstore schema ${schema}; create extension citext schema ${schema};
    create domain ${schema}.email as ${schema}.citext check (value like '%@%')`;

  test("arrive as they are, also as keys and in arrays", async () => {
    const types = [
      hstore(schema),
      citext(schema),
      { type: `${schema}.email`, values: ["A@b", "é@x"], alike: ["a@B"] },
    ];
    await expectFaithful([...types, ...arraysOf(types.slice(0, 2))], { prelude });
  });

  test("a citext key may change its case, and finds its row in any", async () => {
    await using replication = await startReplication({
      schema: `${prelude}; create table plain (k ${schema}.citext primary key, v int); create table whole (k ${schema}.citext primary key, v int);
        alter table whole replica identity full; create table pair (a ${schema}.citext, b ${schema}.hstore, v int, primary key (a, b))`,
      rows: `insert into plain values ('alpha', 1), ('beta', 2); insert into whole values ('alpha', 1), ('beta', 2); insert into pair values ('x', 'a=>1', 1), ('X', 'a=>2', 2)`,
    });
    const { source, target } = replication;
    await replication.caughtUp();
    await source.query(
      "update plain set k = 'ALPHA' where k = 'alpha'; update whole set k = 'ALPHA' where k = 'alpha'; update pair set a = 'X' where v = 1",
    );
    await source.query(
      "update plain set v = v + 10; update whole set v = v + 10; update pair set v = v + 10, b = b where v = 2",
    );
    await replication.expectEqual();
    await source.query(
      "delete from plain where lower(k::text) = 'alpha'; delete from whole where lower(k::text) = 'alpha'; delete from pair where v = 12",
    );
    await replication.expectEqual();
    expect(await target.query("select k::text, v from plain")).toEqual([{ k: "beta", v: 12 }]);
    expect(await target.query("select conflicts from erserver.progress")).toEqual([{ conflicts: "0" }]);
  });
});

test("an extension may live in one schema on the source and in another on the target", async () => {
  const table = (schema: string): string =>
    `create schema ext; create extension citext schema ${schema}; create extension hstore schema ${schema};
     create table t (k ${schema}.citext primary key, h ${schema}.hstore, a ${schema}.citext[])`;
  await using replication = await startReplication({
    sourceSchema: table("ext"),
    targetSchema: table("public"),
    rows: `insert into t values ('A', 'x=>1', '{a,NULL}')`,
  });
  await replication.source.query(
    "insert into t values ('b', 'y=>NULL', '{}'); update t set k = 'B', h = h operator(ext.||) 'z=>1' where k = 'b'; delete from t where k = 'a'",
  );
  await replication.expectEqual();
});

const HAS_NONDETERMINISTIC = testMajor("source") >= 12;

test.runIf(HAS_NONDETERMINISTIC)("a key of a nondeterministic collation may change its case", async () => {
  await using replication = await startReplication({
    schema: `create collation insensitive (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
      create table plain (k text collate insensitive primary key, v int); create table whole (k text collate insensitive, v text collate insensitive);
      alter table whole replica identity full`,
    rows: "insert into plain values ('alpha', 1), ('Straße', 2); insert into whole values ('a', 'b'), ('A', 'B'), ('a', 'B')",
  });
  await replication.caughtUp();
  const { source, target } = replication;
  await source.query(
    "update plain set k = 'ALPHA' where k = 'Alpha'; update plain set v = 3 where k = 'straße'; insert into plain values ('new', 1)",
  );
  await source.query(
    "update whole set v = 'c' where k = 'A' collate \"C\"; delete from whole where v = 'B' collate \"C\"; delete from plain where k = 'NEW'",
  );
  await replication.expectEqual();
  expect(await target.query("select conflicts from erserver.progress")).toEqual([{ conflicts: "0" }]);
});
