import { describe, expect, test } from "vitest";
import { quoteIdent, quoteQualified } from "../../src/quote/ident.ts";
import { freshDatabase, sharedCluster, testMajor } from "../support/clusters.ts";
import { caughtUp, runPipeline, startReplication, testConfig } from "../support/pipeline-context.ts";
import { expectEqualTables } from "../support/compare.ts";

const NAMES = [
  "Capitals",
  "two words",
  " ",
  "it's",
  'say "hi"',
  '"',
  "a.b",
  "a,b;c--d/*",
  "back\\slash",
  "new\nline\ttab",
  "$1",
  "{}[]()%s",
  "1digit",
  "x".repeat(63),
  "é".repeat(31),
  "東京",
  "🐘",
  "e\u0301",
  "select",
  "table",
  "user",
  "null",
  "default",
  "old",
  "new",
  "excluded",
  "tableoid_",
  "__proto__",
  "constructor",
  "toString",
  "hasOwnProperty",
  "-",
  "*",
  "k",
];

const schemaOf = (name: string, index: number): string =>
  index % 2 === 0 ? "public" : `s ${name}`.slice(0, name.length > 40 ? 20 : 60);

describe("names", () => {
  test("of tables and schemas may be anything", async () => {
    const tables = NAMES.map((name, index) => [schemaOf(name, index), name] as const);
    const every = (sql: (table: string) => string): string =>
      tables.map(([schema, name]) => sql(quoteQualified(schema, name))).join("; ");
    const schemas = [...new Set(tables.map(([schema]) => schema))].filter((schema) => schema !== "public");
    await using replication = await startReplication({
      schema: `${schemas.map((schema) => `create schema ${quoteIdent(schema)}`).join("; ")}; ${every((table) => `create table ${table} (id int primary key, v text)`)}`,
      rows: every((table) => `insert into ${table} values (1, 'a'), (2, 'b')`),
    });
    const { source } = replication;
    await source.query(
      every(
        (table) =>
          `insert into ${table} values (3, 'c'); update ${table} set v = 'x' where id = 1; update ${table} set id = 20 where id = 2`,
      ),
    );
    await replication.expectEqual();
    await source.query(every((table) => `delete from ${table} where id = 1`));
    // 10 does not decode TRUNCATE.
    if (testMajor("source") >= 11) {
      await source.query(
        `truncate ${tables
          .slice(0, 5)
          .map(([schema, name]) => quoteQualified(schema, name))
          .join(", ")}`,
      );
    }
    await replication.expectEqual();
    expect(await replication.target.query("select conflicts from erserver.progress")).toEqual([
      { conflicts: "0" },
    ]);
  });

  test("of columns may be anything, in a key, in a whole-row identity and in between", async () => {
    const columns = NAMES.map((name) => `${quoteIdent(name)} text`).join(", ");
    const values = NAMES.map((_, index) => `'value ' || ${index}`).join(", ");
    await using replication = await startReplication({
      schema: `create table plain (${columns}, primary key (${NAMES.slice(0, 30).map(quoteIdent).join(", ")})); create table whole (${columns}); alter table whole replica identity full`,
      rows: `insert into plain select ${values}; insert into whole select ${values}`,
    });
    const { source } = replication;
    const some = NAMES.flatMap((name, index) =>
      index % 3 === 0 ? [`${quoteIdent(name)} = 'changed'`] : [],
    ).join(", ");
    for (const table of ["plain", "whole"]) {
      await source.query(
        `insert into ${table} select ${values.replaceAll("'value '", "'second '")}; update ${table} set ${some} where "k" like 'value%'; update ${table} set "k" = null`,
      );
    }
    await replication.expectEqual();
    await source.query(
      `delete from plain where "two words" like 'second%'; delete from whole where "two words" like 'second%'`,
    );
    await replication.expectEqual();
    expect(await replication.target.query("select conflicts from erserver.progress")).toEqual([
      { conflicts: "0" },
    ]);
  });

  test("of types may be anything", async () => {
    const names = NAMES.filter((name) => name !== "k");
    const types = names.map((name, index) =>
      quoteQualified(index % 2 === 0 ? "public" : "T.s", index % 4 === 3 ? name.slice(0, 40) : name),
    );
    await using replication = await startReplication({
      schema: `create schema "T.s"; ${types.map((type) => `create type ${type} as enum ('a', 'b')`).join("; ")};
        create table t (id int primary key, ${types.map((type, index) => `c${index} ${type}, a${index} ${type}[]`).join(", ")})`,
      rows: `insert into t select 1, ${types.map(() => "'a', '{a,b}'").join(", ")}`,
    });
    await replication.source.query(
      `insert into t select 2, ${types.map(() => "'b', '{a,NULL}'").join(", ")}; update t set c1 = 'b' where id = 1`,
    );
    await replication.expectEqual();
  });

  test("may be the same in several schemas, with other columns", async () => {
    await using replication = await startReplication({
      schema: `create schema a; create schema "A"; create table t (id int primary key, v text); create table a.t (v text, id int primary key);
        create table "A".t (id bigint primary key, w int); create table a."T" (id int primary key); create type a.e as enum ('x'); create type "A".e as enum ('y');
        create table a.typed (id int primary key, e a.e); create table "A".typed (id int primary key, e "A".e)`,
      rows: `insert into t values (1, 'public'); insert into a.t values ('a', 1); insert into "A".t values (1, 7); insert into a."T" values (5)`,
    });
    const { source } = replication;
    await source.query(`insert into t values (2, 'public'); insert into a.t values ('a', 2); insert into "A".t values (2, 7); insert into a."T" values (6);
      insert into a.typed values (1, 'x'); insert into "A".typed values (1, 'y'); update t set v = 'p'; update a.t set v = 'q'; update "A".t set w = 8; delete from a."T" where id = 5`);
    await replication.expectEqual();
  });

  test.for(["Sales & Co.", 'it\'s "odd"', "a/b?c=d#e%20", "東京", "select", " x "])(
    "of a database may be %j, on both sides alike (S16)",
    async (name) => {
      // The databases of one server are shared by all tests.
      const unique = `${name}${Date.now() % 100_000}`;
      await using source = await freshDatabase(sharedCluster("source"), { name: unique });
      await using target = await freshDatabase(sharedCluster("target"), { name: unique });
      const table = "create table t (id int primary key, v text)";
      await source.query(`${table}; insert into t values (1, 'a')`);
      await target.query(table);
      const config = testConfig(JSON.stringify(source.url), { north: JSON.stringify(target.url) });
      await using running = runPipeline(config, "north");
      await source.query("insert into t values (2, 'b')");
      await caughtUp(source, running);
      await expectEqualTables(source.url, target.url);
    },
  );
});
