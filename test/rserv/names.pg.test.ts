import { randomBytes } from "node:crypto";
import { describe, expect, test } from "vitest";
import { parseConninfo } from "../../src/config/conninfo.ts";
import { systemEnvironment } from "../../src/config/environment.ts";
import type { Database } from "../../src/rserv/database.ts";
import { masterAddTable, masterDrop, masterForget, masterInit } from "../../src/rserv/master.ts";
import { prepareReplication, replicateOnce } from "../../src/rserv/replicate.ts";
import { slaveAddTable, slaveDrop, slaveInit, slaveRemoveTable } from "../../src/rserv/slave.ts";
import { type FreshDatabase, freshDatabase, sharedCluster } from "../support/clusters.ts";
import { testLog } from "../support/pipeline-context.ts";

const { signal } = new AbortController();

const databaseOf = ({ url }: FreshDatabase): Database => ({
  conninfo: parseConninfo(url, systemEnvironment()),
  timeoutMs: 30_000,
  signal,
});

describe("a table is named", () => {
  test("without its schema, folded as in psql, or as the catalogue has it", async () => {
    await using source = await freshDatabase(sharedCluster("source"));
    const master = databaseOf(source);
    await source.query(
      `create schema shop; create table shop.customer (id int primary key); create table "Odd Name" (id int primary key)`,
    );
    await masterInit(master);
    const label = async (table: string) => (await masterAddTable(master, { table })).label;
    expect(await label("Customer")).toBe("shop.customer");
    expect(await label("SHOP.customer")).toBe("shop.customer");
    expect(await label("Odd Name")).toBe('public."Odd Name"');
    expect(await label('"Odd Name"')).toBe('public."Odd Name"');
  });

  test("with its schema where several have the name; a view is told from what is not there", async () => {
    await using source = await freshDatabase(sharedCluster("source"));
    const master = databaseOf(source);
    await source.query(
      `create table customer (id int primary key); create schema shop; create table shop.customer (id int primary key);
       create schema depot; create table shop.stock (id int primary key); create table depot.stock (id int primary key);
       create view people as select * from customer`,
    );
    await masterInit(master);
    const add = (table: string) => masterAddTable(master, { table });
    await expect(add("stock")).rejects.toMatchObject({
      code: "ERS-401",
      message: 'several tables are called "stock"',
      remedy: "Name one of: depot.stock, shop.stock",
    });
    expect((await add("customer")).label).toBe("public.customer");
    expect((await add("shop.customer")).label).toBe("shop.customer");
    await expect(add("people")).rejects.toThrow('"people" is not a table that can be replicated');
    await expect(add("custumer")).rejects.toThrow('no table "custumer". Did you mean "customer"?');
  });
});

test("S28: what the role may not do with a table is said with the GRANT, and the table is not registered", async () => {
  await using source = await freshDatabase(sharedCluster("source"));
  const role = `pma_${randomBytes(4).toString("hex")}`;
  await source.query(
    `create role ${role} login; grant create on database ${source.name} to ${role};
     create schema shop; create table shop.customer (id int primary key); grant select on shop.customer to ${role}`,
  );
  try {
    const master = databaseOf({ ...source, url: source.server.url(source.name, role) });
    await masterInit(master);
    for (const grant of [`GRANT USAGE ON SCHEMA "shop"`, `GRANT TRIGGER ON shop.customer`]) {
      await expect(masterAddTable(master, { table: "shop.customer" })).rejects.toMatchObject({
        code: "ERS-304",
        remedy: expect.stringContaining(`${grant} TO "${role}";`),
      });
      expect(await source.query("select from erserver.captured_table")).toHaveLength(0);
      await source.query(`${grant} to ${role}`);
    }
    expect(await masterAddTable(master, { table: "shop.customer" })).toMatchObject({ how: "added" });
    // The triggers are there: whoever only replicates need not be able to make them.
    await source.query(`revoke trigger on shop.customer from ${role}`);
    expect(await masterAddTable(master, { table: "shop.customer" })).toMatchObject({ how: "already" });
  } finally {
    await source.query(`drop owned by ${role} cascade; drop role ${role}`);
  }
});

test("S33: a table that was dropped on the slave can still be taken out there", async () => {
  await using target = await freshDatabase(sharedCluster("target"));
  const slave = databaseOf(target);
  await target.query("create table t (id int primary key); create table u (id int primary key)");
  await slaveInit(slave);
  for (const table of ["t", "u"]) await slaveAddTable(slave, { table });
  await target.query("drop table t");
  expect(await slaveRemoveTable(slave, { table: "t" })).toEqual({ label: "public.t", columns: undefined });
  await expect(slaveRemoveTable(slave, { table: "t" })).rejects.toMatchObject({ code: "ERS-401" });
  expect(await target.query("select table_name from erserver.slave_table")).toEqual([{ table_name: "u" }]);
});

test("a table that is taken out of the slave and registered again is compared again", async () => {
  await using source = await freshDatabase(sharedCluster("source"));
  await using target = await freshDatabase(sharedCluster("target"));
  const [master, slave] = [databaseOf(source), databaseOf(target)];
  for (const database of [source, target]) await database.query("create table t (id int primary key)");
  await source.query("insert into t values (1), (2)");
  await masterInit(master);
  await slaveInit(slave);
  await masterAddTable(master, { table: "t" });
  await slaveAddTable(slave, { table: "t" });
  const options = { master, slave, tables: [], log: testLog(), signal };
  const replicate = async () => replicateOnce(await prepareReplication(options), options, () => {});
  expect(await replicate()).toMatchObject({ copied: true });
  await target.query("drop table t; create table t (id int primary key)");
  await slaveRemoveTable(slave, { table: "t" });
  await slaveAddTable(slave, { table: "t" });
  expect(await replicate()).toMatchObject({ copied: true });
  expect(await target.query("select id from t order by id")).toEqual([{ id: 1 }, { id: 2 }]);
  await source.query("insert into t values (3)");
  expect(await replicate()).toMatchObject({ copied: false, rows: 1 });
});

test("master and slave that are one database are refused", async () => {
  await using source = await freshDatabase(sharedCluster("source"));
  const both = databaseOf(source);
  await masterInit(both);
  await slaveInit(both);
  const replication = { master: both, slave: both, tables: [], log: testLog(), signal };
  await expect(prepareReplication(replication)).rejects.toMatchObject({ code: "ERS-103" });
});

test("S33, T10: a slave that is gone is forgotten by the name that SlaveDrop says, and nothing is left", async () => {
  await using source = await freshDatabase(sharedCluster("source"));
  await using target = await freshDatabase(sharedCluster("target"));
  const [master, slave] = [databaseOf(source), databaseOf(target)];
  for (const database of [source, target]) await database.query("create table t (id int primary key)");
  await masterInit(master);
  await slaveInit(slave);
  await masterAddTable(master, { table: "t" });
  await slaveAddTable(slave, { table: "t" });
  const options = { master, slave, tables: [], log: testLog(), signal };
  await replicateOnce(await prepareReplication(options), options, () => {});
  const [name = ""] = (await slaveDrop(slave))?.names ?? [];
  expect(await source.query("select from erserver.consumer")).toHaveLength(1);
  expect(await masterForget(master, name)).toMatchObject({ known: true });
  expect(await source.query("select from erserver.consumer")).toHaveLength(0);
  expect(await masterForget(master, name)).toMatchObject({ known: false });
  expect(await masterDrop(master)).toEqual({ tables: 1 });
  for (const database of [source, target])
    expect(await database.query("select from pg_namespace where nspname = 'erserver'")).toHaveLength(0);
});
