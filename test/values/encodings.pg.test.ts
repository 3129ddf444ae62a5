/**
 * Known gap: a SQL_ASCII database may hold bytes that are not UTF-8. They stop replication, also to another SQL_ASCII database,
 * because our sessions speak UTF-8 (the source itself refuses to send such bytes to them), and no table is named.
 */
import { describe, expect, test } from "vitest";
import { startReplication } from "../support/pipeline-context.ts";
import {
  arraysOf,
  expectFaithful,
  sql,
  TRAVEL,
  travelConfig,
  type ValueType,
  valueSince,
} from "./value-history.ts";

/** All printable characters of LATIN1 above ASCII, and the control characters that JSON and XML would refuse left out. */
const HIGH = String.fromCodePoint(...Array.from({ length: 96 }, (_, index) => 160 + index));

const LATIN1: readonly ValueType[] = [
  { type: "text", values: ["é", HIGH, "plain", sql(`repeat('${HIGH}', 80)`)] },
  { type: "varchar(96)", values: ["é", HIGH] },
  { type: "char(3)", values: ["éü", "é"] },
  { type: "name", values: ["É", "ÿ"] },
  { type: "json", key: false, values: ['{"ä": "ß"}', "{}", ...valueSince(13, '"\\u00e9"')] },
  { type: "jsonb", values: ['{"ä": "ß"}', "{}", ...valueSince(13, '"\\u00e9"')] },
  { type: "xml", key: false, values: ["<ä ö='ü'>ß</ä>", "é"] },
  { type: "tsvector", values: ["'é':1", "ß ü"] },
  { type: "bytea", values: [sql(`convert_to('${HIGH}', 'LATIN1')`), sql("'\\xc3a9'")] },
  { type: "mood", values: ["fröhlich", "müde"] },
];

const UNSAFE: readonly ValueType[] = [
  { type: '"Größe"', values: ["(é,1)", "(ü,2)"] },
  { type: "public.hstore", values: ["é=>ü", "a=>b"] },
  ...arraysOf(LATIN1),
];

const MOOD = "create type mood as enum ('fröhlich', 'müde')";
const PRELUDE = `${MOOD}; create type "Größe" as ("Länge" text, "Höhe" int); create extension hstore schema public; create schema "Überall"; create table "Überall"."Straße" ("é" int primary key)`;

const PAIRS = [
  ["LATIN1", "UTF8"],
  ["UTF8", "LATIN1"],
  ["LATIN1", "LATIN1"],
] as const;

describe.each(PAIRS)("%s to %s", (source, target) => {
  const encodings = { source, target };

  test.for(TRAVEL)("keeps every character that both have, as %s", async ([travel]) => {
    await expectFaithful(LATIN1, { encodings, prelude: MOOD, config: travelConfig(travel) });
  });

  test("keeps names, and every character inside of composites, arrays and hstore", async () => {
    await expectFaithful(UNSAFE, { encodings, prelude: PRELUDE });
  });
});

test("LATIN1 to LATIN1 takes names of 63 characters, which are more bytes in UTF-8 than UTF8 databases allow", async () => {
  const long = (letter: string): string => letter.repeat(63);
  const [schema, table, key, value, mood] = ["Ö", "é", "ü", "à", "ß"].map((letter) => long(letter));
  const name = `"${schema}"."${table}"`;
  await using replication = await startReplication({
    encodings: { source: "LATIN1", target: "LATIN1" },
    schema: `create schema "${schema}"; create type "${schema}"."${mood}" as enum ('ja', '${long("ö")}');
      create table ${name} ("${key}" int primary key, "${value}" "${schema}"."${mood}")`,
    rows: `insert into ${name} values (1, 'ja'), (2, '${long("ö")}')`,
    config: `tables: { include: ['${name}'] }`,
  });
  const { source, target } = replication;
  await replication.expectEqual();
  await source.query(`insert into ${name} values (3, 'ja'), (4, 'ja')`);
  await source.query(`update ${name} set "${value}" = '${long("ö")}' where "${key}" = 3`);
  await source.query(`delete from ${name} where "${key}" = 1`);
  await replication.expectEqual();
  expect(await target.query(`select "${key}" as k from ${name} order by 1`)).toEqual([
    { k: 2 },
    { k: 3 },
    { k: 4 },
  ]);
});

describe("UTF8 to LATIN1, with a character that LATIN1 has not,", () => {
  const encodings = { source: "UTF8", target: "LATIN1" };
  const schema = "create table first (id int primary key); create table second (k text primary key, v text)";

  test.for(TRAVEL)(
    "stops at the transaction that has it, names table and remedy, and applies nothing of it, as %s",
    async ([travel]) => {
      await using replication = await startReplication({ schema, encodings, config: travelConfig(travel) });
      await replication.caughtUp();
      const { source, target } = replication;
      await source.query(
        "begin; insert into first values (1); insert into second values ('é', 'fine'); commit",
      );
      await replication.caughtUp();
      await source.query(
        "begin; insert into first values (2); insert into second values ('東', 'x'); insert into first values (3); commit",
      );
      await source.query("insert into first values (4)");
      const failure: unknown = await replication.running.finished.then(
        () => undefined,
        (error: unknown) => error,
      );
      expect(failure).toMatchObject({ code: "ERS-701", subject: "public.second" });
      expect(failure).toMatchObject({ remedy: expect.stringMatching(/UTF8/) });
      expect(replication.running.pipeline.status.state).toBe("stopped");
      expect(await target.query("select id from first")).toEqual([{ id: 1 }]);
      expect(await target.query("select k from second")).toEqual([{ k: "é" }]);
    },
  );

  test("stops in the first copy, names table and remedy, and leaves that table empty", async () => {
    await using replication = await startReplication({
      schema,
      encodings,
      rows: "insert into second values ('a', 'b'), ('c', '東')",
    });
    await expect(replication.running.finished).rejects.toMatchObject({
      code: "ERS-701",
      subject: "public.second",
      remedy: expect.stringMatching(/UTF8/),
    });
    expect(await replication.target.query("select * from second")).toEqual([]);
  });
});

describe("SQL_ASCII", () => {
  const encodings = { source: "SQL_ASCII", target: "SQL_ASCII" };
  const schema = "create table t (id int primary key, v text)";

  test("to SQL_ASCII and UTF8 keeps what is UTF-8", async () => {
    for (const target of ["SQL_ASCII", "UTF8"]) {
      await using replication = await startReplication({
        schema,
        encodings: { ...encodings, target },
        rows: "insert into t values (1, 'é')",
      });
      await replication.source.query("insert into t values (2, '東')");
      await replication.caughtUp();
      expect(await replication.target.query("select id, v from t order by id")).toEqual([
        { id: 1, v: "é" },
        { id: 2, v: "東" },
      ]);
    }
  });

  test("with bytes that are not UTF-8 stops, and never writes others instead", async () => {
    await using replication = await startReplication({ schema, encodings });
    await replication.caughtUp();
    await replication.source.query("insert into t values (1, E'\\xe9')");
    await expect(replication.running.finished).rejects.toThrow(/invalid byte sequence/);
    expect(await replication.target.query("select * from t")).toEqual([]);
  });
});
