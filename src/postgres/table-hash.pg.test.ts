import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type FreshDatabase, freshDatabase, sharedCluster } from "../../test/support/clusters.ts";
import { testConfig } from "../../test/support/pipeline-context.ts";
import { readTables } from "./catalog.ts";
import { connectControl, connectWire } from "./connect.ts";
import { addHashes, hashTable, sameHash, type TableHash } from "./table-hash.ts";

const OPTIONS = { applicationName: "erserver test", timeoutMs: 30_000 };

/** The hash of a table as verify and adopt take it; `columns` in the order in which they are asked for. */
async function hashOf(
  database: FreshDatabase,
  name: string,
  { columns, where }: { columns?: readonly string[]; where?: string } = {},
): Promise<TableHash> {
  const { source: conninfo } = testConfig(database.url, { other: "postgres://nobody@127.0.0.1:1/other" });
  await using control = await connectControl(conninfo, OPTIONS);
  const [{ version } = { version: "" }] = await control.query<{ version: string }>(
    "select current_setting('server_version_num') as version",
  );
  const table = (await readTables(control, Number(version))).find((candidate) => candidate.name === name);
  if (table === undefined) throw new Error(`no table ${name}`);
  const byName = new Map(table.columns.map((column) => [column.name, column]));
  const asked =
    columns?.map((column) => byName.get(column) as (typeof table.columns)[number]) ?? table.columns;
  const wire = await connectWire(conninfo, OPTIONS);
  try {
    return await hashTable(wire, { ...table, columns: asked, where });
  } finally {
    await wire.end();
  }
}

const COLUMNS = ["id", "a", "b", "f4", "f8", "n", "fs", "ps", "d", "at", "h", "c", "j", "m"];

const TABLE = `create domain exact as float8;
  create table t (id int, a text, b text, f4 real, f8 float8, n numeric, fs float8[], ps point[], d exact, at timestamptz, h bytea, c char(5), j json, m money)`;

const ROWS = `insert into t select i, 'a' || i, 'b' || i, i / 3.0, i / 7.0, i / 10.0, array[(i / 3.0)::float8, null, 'NaN', '-0'], array[point(i / 3.0, 0)], i / 3.0,
    '2020-01-01 00:00:00+00'::timestamptz + i * interval '1 second', decode(md5(i::text), 'hex'), 'c', '{"b": 1, "a": 2}', i::money
  from generate_series(1, 200) i;
  insert into t (id) values (1000), (1000); insert into t (id, a, b, f8) values (1001, '', null, 'NaN')`;

describe("the hash of a table", () => {
  let source: FreshDatabase;
  let target: FreshDatabase;

  beforeAll(async () => {
    source = await freshDatabase(sharedCluster("source"));
    target = await freshDatabase(sharedCluster("target"));
    await source.query(`${TABLE}; ${ROWS}`);
    await target.query(TABLE);
  });

  afterAll(async () => {
    await source[Symbol.asyncDispose]();
    await target[Symbol.asyncDispose]();
  });

  test("is the same on both servers, whatever the order of rows and columns", async () => {
    await target.query(
      `${ROWS}; create table u as select m, j, c, h, at, d, ps, fs, n, f8, f4, b, a, id from t order by md5(id::text)`,
    );
    const wanted = await hashOf(source, "t", { columns: COLUMNS });
    expect(wanted.rows).toBe(203);
    expect(await hashOf(target, "t", { columns: COLUMNS })).toEqual(wanted);
    expect(await hashOf(target, "u", { columns: COLUMNS })).toEqual(wanted);
  });

  test("is of the selected rows", async () => {
    await target.query(`truncate t; ${ROWS}; delete from t where id > 100`);
    expect(await hashOf(target, "t")).toEqual(await hashOf(source, "t", { where: "id <= 100" }));
  });

  test.for([
    ["a value", "update t set b = 'c' where id = 77"],
    ["an empty string for NULL", "update t set b = '' where id = 1001"],
    ["NULL for an empty string", "update t set a = null where id = 1001"],
    ["a value moved to the next column", "update t set a = b, b = a where id = 77"],
    [
      "a value moved to another row",
      "update t set a = (case id when 5 then 'a6' else 'a5' end) where id in (5, 6)",
    ],
    ["a missing row", "delete from t where id = 200"],
    ["a row too many", "insert into t (id) values (2)"],
    ["a missing duplicate", "delete from t where ctid = (select max(ctid) from t where id = 1000)"],
    ["one row twice for another", "delete from t where id = 5; insert into t select * from t where id = 6"],
    ["-0 for 0", "update t set f8 = '-0' where id = 1001; update t set f8 = 0 where id = 1000"],
    ["-0 for 0 in real", "update t set f4 = '-0' where id = 1001"],
    ["the last bit of a float", "update t set f8 = f8 + 1e-16 where id = 1"],
    ["a NaN for a NULL", "update t set f4 = 'NaN' where id = 1001"],
    [
      "another scale",
      "update t set n = n::numeric(20, 1) where id = 10; update t set n = n::numeric(20, 2) where id = 10",
    ],
    ["a float in an array", "update t set fs[1] = fs[1] + 1e-15 where id = 3"],
    ["0 for -0 in an array", "update t set fs[4] = 0 where id = 3"],
    ["a NULL in an array", "update t set fs[2] = 0 where id = 3"],
    ["the bounds of an array", "update t set fs = ('[0:3]=' || fs::text)::float8[] where id = 3"],
    ["an empty array for NULL", "update t set fs = '{}' where id = 1000"],
    ["a float in a domain", "update t set d = d + 1e-15 where id = 3"],
    ["a blank", "update t set a = a || ' ' where id = 9"],
    ["blanks in JSON", `update t set j = '{"b":1, "a": 2}' where id = 9`],
    ["what looks like two columns", `update t set a = 'a9,b9', b = null where id = 9`],
    ["a microsecond", "update t set at = at + interval '1 microsecond' where id = 9"],
  ] as const)("changes with %s", async ([, sql]) => {
    await target.query(`truncate t; ${ROWS}`);
    const wanted = await hashOf(target, "t");
    await target.query(sql);
    expect(sameHash(await hashOf(target, "t"), wanted)).toBe(false);
  });

  test("does not change with how an array came to be, nor with the bits of a NaN", async () => {
    await target.query(
      `truncate t; ${ROWS}; create table once (fs float8[], f8 float8); insert into once values ('{1,2}', 'NaN')`,
    );
    await target.query(
      "create table again (fs float8[], f8 float8); insert into again values ('{1,NULL}', 'Infinity'::float8 - 'Infinity'); update again set fs[2] = 2",
    );
    expect(await hashOf(target, "again")).toEqual(await hashOf(target, "once"));
  });

  test("is the same in every encoding, and of a partitioned table the sum of its partitions", async () => {
    await using latin = await freshDatabase(sharedCluster("target"), { encoding: "LATIN1" });
    const rows = "insert into p select i, 'é ' || i from generate_series(1, 20) i";
    await latin.query(`create table p (id int, v text); ${rows}`);
    await source.query(`create table p (id int, v text) partition by range (id); create table p1 partition of p for values from (0) to (10);
      create table p2 partition of p for values from (10) to (100); ${rows}`);
    const wanted = await hashOf(source, "p");
    expect(await hashOf(latin, "p")).toEqual(wanted);
    expect(addHashes(await hashOf(source, "p1"), await hashOf(source, "p2"))).toEqual(wanted);
  });

  test("of no rows, and of no columns, is one", async () => {
    await source.query(
      "create table e (id int, v text); create table n (); insert into n default values; insert into n default values",
    );
    expect((await hashOf(source, "e")).rows).toBe(0);
    expect((await hashOf(source, "n")).rows).toBe(2);
  });
});
