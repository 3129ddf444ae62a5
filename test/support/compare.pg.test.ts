import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type FreshDatabase, freshDatabase, sharedCluster } from "./clusters.ts";
import { expectEqualTables } from "./compare.ts";

const TYPES = `
  CREATE DOMAIN score AS float8;
  CREATE TABLE "Odd ""names""" (id int, f4 float4, f8 float8, f8s float8[], s score, p point, n numeric, b bytea, t timestamptz, c char(5), x text);
  INSERT INTO "Odd ""names""" VALUES (1, 0.1, 0.1, '{0.1,NaN,-0,Infinity}', 1e-7, '(0.1,2)', 1.500, '\\x00ff', '2020-02-29 23:59:59.999999+00', 'ab', 'ä€'),
    (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL), (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
  CREATE TABLE many AS SELECT g AS id, 'row ' || g AS v FROM generate_series(1, 20000) g;
  CREATE TABLE nothing ();
  CREATE TABLE measured (at date, v int) PARTITION BY RANGE (at);
  CREATE TABLE measured_2020 PARTITION OF measured FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
  INSERT INTO measured VALUES ('2020-05-05', 7);`;

test("equal content is equal, whatever the order of rows and columns, the settings, the partitions and the version", async () => {
  await using source = await freshDatabase(sharedCluster("source"));
  await using target = await freshDatabase(sharedCluster("target"));
  await source.query(TYPES);
  await target.query(TYPES);
  await target.query(`
    DROP TABLE many; CREATE TABLE many (extra int DEFAULT 9, gone int, v text, id int); ALTER TABLE many DROP COLUMN gone;
    INSERT INTO many (id, v) SELECT g, 'row ' || g FROM generate_series(20000, 1, -1) g;
    DROP TABLE measured; CREATE TABLE measured (v int, at date); INSERT INTO measured VALUES (7, '2020-05-05')`);
  await target.query(
    `ALTER DATABASE ${target.name} SET datestyle = 'SQL, DMY'; ALTER DATABASE ${target.name} SET timezone = 'Asia/Tokyo'`,
  );
  await expectEqualTables(source.url, target.url);
});

test("equal content is equal in another encoding", async () => {
  await using source = await freshDatabase(sharedCluster("source"));
  await using target = await freshDatabase(sharedCluster("target"), { encoding: "LATIN1" });
  for (const database of [source, target])
    await database.query("CREATE TABLE t (v text); INSERT INTO t VALUES ('Zürich'), ('é')");
  await expectEqualTables(source.url, target.url);
});

describe("among equal tables", () => {
  let source: FreshDatabase;
  let target: FreshDatabase;

  beforeAll(async () => {
    source = await freshDatabase(sharedCluster("source"));
    target = await freshDatabase(sharedCluster("target"));
    await source.query(TYPES);
  });

  afterAll(async () => {
    await source[Symbol.asyncDispose]();
    await target[Symbol.asyncDispose]();
  });

  test.for([
    [
      "a changed value",
      "UPDATE many SET v = 'other' WHERE id = 777",
      /public\.many .*20000 rows.*20000[^]*source only: \(777,"row 777"\)/,
    ],
    ["a missing row", "DELETE FROM many WHERE id = 3", /source only: \(3,"row 3"\)/],
    ["a row too many", "INSERT INTO many VALUES (20001, 'new')", /target only: \(20001,new\)/],
    [
      "a missing duplicate",
      `DELETE FROM "Odd ""names""" o WHERE ctid = (SELECT max(ctid) FROM "Odd ""names""")`,
      /3 rows on the source, 2/,
    ],
    ["-0 for 0", `UPDATE "Odd ""names""" SET f8 = -0.0::float8 WHERE id = 1`, /Odd ""names""/],
    [
      "the last bit of a float",
      `UPDATE "Odd ""names""" SET f8 = 0.1::float8 + 1e-17 * 2 WHERE id = 1`,
      /Odd ""names""/,
    ],
    ["a blank less", `UPDATE "Odd ""names""" SET x = 'ä€ ' WHERE id = 1`, /Odd ""names""/],
    ["the scale of a numeric", `UPDATE "Odd ""names""" SET n = 1.50 WHERE id = 1`, /Odd ""names""/],
    ["NULL and the empty string", `UPDATE "Odd ""names""" SET x = '' WHERE id IS NULL`, /Odd ""names""/],
    ["a missing table", "DROP TABLE many", /public\.many: not on the target/],
  ] as const)("%s is seen and named", async ([, sql, message]) => {
    await target.query(`DROP SCHEMA public CASCADE; CREATE SCHEMA public; ${TYPES}`);
    await target.query(sql);
    await expect(expectEqualTables(source.url, target.url)).rejects.toThrow(message);
  });
});
