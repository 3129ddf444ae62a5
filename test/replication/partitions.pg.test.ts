import { describe, expect, test } from "vitest";
import { testMajor } from "../support/clusters.ts";
import { startReplication } from "../support/pipeline-context.ts";

/** Before 11 partitioned tables have no primary keys, and an UPDATE cannot move a row. */
const modern = testMajor("source") >= 11;
/** Before 13 the source publishes the partitions that there are when replication begins, and truncates them one by one. */
const rootsPublished = testMajor("source") >= 13;

const keys = modern ? "primary key (id, at)" : "unique (id, at)";
const identity = (table: string): string => (modern ? "" : `alter table ${table} replica identity full;`);

const PARTITIONED = `create table sale (id int not null, at date not null, v text${modern ? `, ${keys}` : ""}) partition by range (at);
  create table sale_1 partition of sale for values from ('2020-01-01') to ('2021-01-01');
  create table sale_2 partition of sale for values from ('2021-01-01') to ('2022-01-01') partition by range (id);
  create table "Sale 2 a" partition of sale_2 for values from (minvalue) to (20); create table sale_2_rest partition of sale_2 for values from (20) to (maxvalue);
  ${["sale", "sale_1", "sale_2", '"Sale 2 a"', "sale_2_rest"].map(identity).join("")}`;
const FLAT = "create table sale (v text, id int not null, at date not null, primary key (id, at))";
const ROWS = `insert into sale (id, at, v) select i, date '2020-01-01' + i * 20, (array['a', 'b', 'c'])[1 + i % 3] from generate_series(1, 30) i`;

const WORK = `insert into sale (id, at, v) select i, date '2020-01-01' + i * 3, 'b' from generate_series(101, 120) i;
  update sale set v = 'u' where id % 5 = 0; update sale set id = id + 1000 where id % 7 = 0; delete from sale where id % 11 = 0;
  ${modern ? "update sale set at = '2021-06-01', v = 'moved' where id = 1; update sale set at = at - interval '1 year' where at >= '2021-01-01' and id % 2 = 0 and at < '2021-12-01' and id <> 1;" : ""}
  delete from sale where v = 'c' and id > 20`;

describe("partitioned tables", () => {
  test.for([
    ["partitioned to partitioned under the root's name", PARTITIONED, true],
    ["partitioned to flat", FLAT, true],
    ["partition by partition", PARTITIONED, false],
    [
      "to partitions that are cut otherwise",
      "create table sale (id int not null, v text, at date not null, primary key (id, at)) partition by hash (id); create table sale_h0 partition of sale for values with (modulus 2, remainder 0); create table sale_h1 partition of sale for values with (modulus 2, remainder 1)",
      true,
    ],
  ] as const)(
    "%s: rows that move between partitions, truncates, restarts",
    async ([, targetSchema, viaRoot]) => {
      await using replication = await startReplication({
        sourceSchema: PARTITIONED,
        targetSchema,
        rows: ROWS,
        config: `tables: { publish_via_partition_root: ${viaRoot} }`,
      });
      const { source } = replication;
      await replication.expectEqual();
      await source.query(WORK);
      await replication.expectEqual();
      if (testMajor("source") >= 11) {
        await source.query(`begin; truncate sale; ${ROWS}; commit`);
        await replication.expectEqual();
        if (!viaRoot) await source.query("truncate sale_1; truncate sale_2");
      }
      await replication.running.stop();
      await source.query(WORK.replace(/10[1]|120/g, (number) => String(Number(number) + 100)));
      await replication.restart();
      await replication.expectEqual();
    },
  );

  test("flat to partitioned", async () => {
    await using replication = await startReplication({
      sourceSchema: FLAT,
      targetSchema:
        "create table sale (id int not null, at date not null, v text, primary key (id, at)) partition by range (at); create table sale_old partition of sale for values from (minvalue) to ('2021-01-01'); create table sale_new partition of sale for values from ('2021-01-01') to (maxvalue)",
      rows: ROWS,
    });
    await replication.source.query(`${WORK}; update sale set at = '2021-06-01' where at < '2020-05-01'`);
    await replication.expectEqual();
    await replication.source.query(
      "alter table sale replica identity full; update sale set v = null where id < 9; update sale set at = '2020-02-02' where id > 1000; delete from sale where id = 8",
    );
    await replication.expectEqual();
  });

  test("a whole-row identity finds its row in any partition", async () => {
    const schema = `create table bag (a int, b text) partition by list (a); create table bag_1 partition of bag for values in (1); create table bag_2 partition of bag for values in (2, 3);
      ${["bag", "bag_1", "bag_2"].map((table) => `alter table ${table} replica identity full;`).join("")}`;
    await using replication = await startReplication({
      schema,
      rows: "insert into bag values (1, 'x'), (1, 'x'), (2, 'x'), (2, null), (2, null), (3, 'z')",
    });
    await replication.source
      .query(`update bag set b = 'y' where ctid = (select ctid from bag_1 limit 1) and a = 1; delete from bag_2 where ctid = (select ctid from bag_2 where b is null limit 1);
      ${modern ? "update bag set a = 1 where a = 3" : "delete from bag where a = 3"}`);
    await replication.expectEqual();
  });

  test.skipIf(!rootsPublished).for([true, false])(
    "a partition that is attached while running comes along (published under the root's name: %s)",
    async (viaRoot) => {
      await using replication = await startReplication({
        schema: PARTITIONED,
        rows: ROWS,
        config: `tables: { publish_via_partition_root: ${viaRoot} }`,
      });
      await replication.caughtUp();
      const { source, target } = replication;
      const attach =
        "create table sale_3 (v text, at date not null, id int not null, primary key (id, at)); ROWS alter table sale attach partition sale_3 for values from ('2022-01-01') to ('2023-01-01')";
      await target.query(attach.replace("ROWS", ""));
      // With its own name it brings its rows along; under the root's name rows that an ALTER TABLE brings are not changes of the root.
      // Before 15 a WAL sender that has met the table before it was attached goes on leaving it out until the next start.
      const bringsRows = !viaRoot && testMajor("source") >= 15;
      await source.query(
        attach.replace(
          "ROWS",
          bringsRows ? "insert into sale_3 values ('brought along', '2022-01-01', 600);" : "",
        ),
      );
      await source.query(
        "insert into sale (id, at, v) values (500, '2022-05-05', 'new'), (501, '2022-05-05', 'new'); update sale set v = 'newer' where id = 500; update sale set at = '2022-02-02' where id = 1; delete from sale where id = 501",
      );
      await replication.expectEqual();
      await replication.restart();
      await source.query(
        "update sale set v = 'newest' where id = 500; insert into sale (id, at, v) values (502, '2022-05-05', 'new')",
      );
      await replication.expectEqual();
    },
  );

  test.runIf(modern && !rootsPublished)(
    "TRUNCATE of one partition stops where it would empty the others too",
    async () => {
      await using replication = await startReplication({
        sourceSchema: PARTITIONED,
        targetSchema: FLAT,
        rows: ROWS,
      });
      await replication.expectEqual();
      await replication.source.query("truncate sale_1");
      await expect(replication.running.finished).rejects.toMatchObject({
        code: "ERS-701",
        subject: "public.sale",
        message: expect.stringContaining("public.sale_1"),
      });
      expect(await replication.target.query("select count(*)::int as n from sale")).toEqual([{ n: 30 }]);
    },
  );

  test.skipIf(!rootsPublished)(
    "a partition that logs less than the root's identity: only inserts are published, and the source's UPDATE goes on",
    async () => {
      const schema = `create table p (a int not null, b int not null) partition by list (a); create table p1 partition of p for values in (1); alter table p replica identity full; alter table p1 add primary key (b)`;
      await using replication = await startReplication({
        schema,
        rows: "insert into p values (1, 1), (1, 2)",
      });
      await replication.source.query("insert into p values (1, 3)");
      await replication.expectEqual();
      await replication.source.query("update p set b = 10 where b = 1; delete from p where b = 2");
      await replication.caughtUp();
      expect(await replication.target.query("select b from p order by b")).toEqual([
        { b: 1 },
        { b: 2 },
        { b: 3 },
      ]);
    },
  );
});

test("a table and the tables that inherit from it are tables of their own", async () => {
  await using replication = await startReplication({
    schema: `create table city (id int primary key, name text); create table capital (state text, primary key (id)) inherits (city); create table "Old" (until date, primary key (id)) inherits (capital)`,
    rows: `insert into city values (1, 'a'); insert into capital values (1, 'same id', 'x'), (2, 'b', 'y'); insert into "Old" values (3, 'c', 'z', '1900-01-01')`,
  });
  const { source } = replication;
  await source.query(
    `update city set name = name || '!'; update only city set id = 10; insert into city values (11, 'n'); delete from city where id = 2; insert into "Old" values (1, 'd', 'w', null)`,
  );
  await replication.expectEqual();
  if (testMajor("source") >= 11) {
    await source.query(`truncate only city; insert into city values (5, 'after')`);
    await replication.expectEqual();
    await source.query(`truncate capital`);
    await replication.expectEqual();
  }
});
