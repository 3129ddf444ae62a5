import { describe, expect, test } from "vitest";
import { testMajor } from "../support/clusters.ts";
import { startReplication } from "../support/pipeline-context.ts";
import {
  arraysOf,
  expectFaithful,
  since,
  sql,
  TRAVEL,
  travelConfig,
  type ValueType,
} from "./value-history.ts";

const SYSTEM: readonly ValueType[] = [
  { type: "pg_lsn", values: ["0/0", "0/1", "FFFFFFFF/FFFFFFFF"] },
  { type: "txid_snapshot", key: false, values: ["1:1:", "10:20:10,14,19"] },
  { type: "xid", key: false, values: ["0", "3", "4294967295"] },
  { type: "cid", key: false, values: ["0", "4294967295"] },
  { type: "tid", values: ["(0,0)", "(4294967295,65535)"] },
  { type: "refcursor", key: false, values: ["", "<unnamed portal 1>"] },
  ...since(
    13,
    { type: "xid8", values: ["0", "3", "18446744073709551615"] },
    { type: "pg_snapshot", key: false, values: ["1:1:", "10:20:10,14,19"] },
  ),
];

/** Never moved as bytes: numbers of objects inside, of which only the names can arrive; no binary form; or one that PostgreSQL itself cannot read. */
const TEXT_ONLY: readonly ValueType[] = [
  { type: "oidvector", values: ["", "1 2 4294967295"] },
  { type: "int2vector", key: false, values: ["", "1 -2 32767"] },
  {
    type: "regclass",
    values: ["pg_class", "public.here", '"Odd Schema"."T.x"', '"Odd Schema".here', "0", "4000000000"],
  },
  {
    type: "regtype",
    values: ["int4", "timestamp with time zone", "public.mood", '"Odd Schema".mood[]', "-"],
  },
  { type: "regproc", values: ["pg_catalog.now", "public.only_one", "-"] },
  {
    type: "regprocedure",
    values: ["pg_catalog.abs(int)", "public.same(int, public.mood)", '"Odd Schema".same(text[])'],
  },
  { type: "regoper", values: ["pg_catalog.||/", "0"] },
  { type: "regoperator", values: ["+(int,int)", "-(none,int)", "0"] },
  { type: "regconfig", values: ["simple", "english"] },
  { type: "regdictionary", values: ["simple", "english_stem"] },
  { type: "regnamespace", values: ["pg_catalog", '"Odd Schema"'] },
  { type: "regrole", values: ["postgres", "-"] },
  ...since(13, { type: "regcollation", values: ['"C"', '"Odd Schema"."My Collation"'] }),
  { type: "aclitem", key: false, values: ["postgres=r*w/postgres", "=r/postgres"] },
  { type: "aclitem[]", key: false, values: ["{}", "{=r/postgres,postgres=arwd/postgres}"] },
  { type: "information_schema.cardinal_number", values: ["0", "2147483647"] },
  // A domain over another type before 12.
  ...since(12, { type: "information_schema.sql_identifier", key: false, values: ["a b", sql("'A'")] }),
];

const OBJECTS = `create schema "Odd Schema"; create table here (id int primary key); create table "Odd Schema"."T.x" (id int primary key);
  create table "Odd Schema".here (id int primary key); create type mood as enum ('sad'); create type "Odd Schema".mood as enum ('sad');
  create function only_one() returns int language sql as 'select 1'; create function same(int, mood) returns int language sql as 'select 1';
  create function same(text) returns int language sql as 'select 1'; create function "Odd Schema".same(text[]) returns int language sql as 'select 1';
  create collation "Odd Schema"."My Collation" from "C";`;

describe("the system's own types", () => {
  test.for(TRAVEL)("arrive as they are, as %s", async ([travel]) => {
    await expectFaithful([...SYSTEM, ...arraysOf(SYSTEM)], { config: travelConfig(travel) });
  });

  test("arrive as names where the numbers differ", async () => {
    await expectFaithful(
      [...TEXT_ONLY, ...arraysOf(TEXT_ONLY.filter(({ type }) => type.startsWith("reg")))],
      {
        // The target counts its objects differently.
        sourcePrelude: "create table only_here (id int); drop table only_here",
        prelude: OBJECTS,
      },
    );
  });

  test("a name that the target has not stops replication and names the table", async () => {
    await using replication = await startReplication({
      schema: "create table t (id int primary key, c regclass)",
    });
    await replication.caughtUp();
    await replication.source.query("create table only_here (id int primary key)");
    await replication.source.query("insert into t values (1, 'only_here')");
    await expect(replication.running.finished).rejects.toMatchObject({
      code: "ERS-701",
      subject: "public.t",
    });
  });
});

test.runIf(testMajor("source") >= 14)("one unsafe column makes all values travel as text", async () => {
  await using replication = await startReplication({
    schema: "create table t (id int primary key, c regclass)",
    config: "binary: on",
  });
  await expect(replication.running.finished).rejects.toMatchObject({ code: "ERS-107" });
});
