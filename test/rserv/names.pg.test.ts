import { describe, expect, test } from "vitest";
import { parseConninfo } from "../../src/config/conninfo.ts";
import { systemEnvironment } from "../../src/config/environment.ts";
import { type Database } from "../../src/rserv/database.ts";
import { masterAddTable, masterDrop, masterForget, masterInit } from "../../src/rserv/master.ts";
import { prepareReplication, replicateOnce } from "../../src/rserv/replicate.ts";
import { slaveAddTable, slaveDrop, slaveInit } from "../../src/rserv/slave.ts";
import { type FreshDatabase, freshDatabase, sharedCluster } from "../support/clusters.ts";
import { testLog } from "../support/pipeline-context.ts";

const databaseOf = ({ url }: FreshDatabase): Database => ({
  conninfo: parseConninfo(url, systemEnvironment()),
  timeoutMs: 30_000,
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
       create view people as select * from customer`,
    );
    await masterInit(master);
    const add = (table: string) => masterAddTable(master, { table });
    await expect(add("customer")).rejects.toMatchObject({
      code: "ERS-401",
      message: '"customer" may be any of public.customer, shop.customer',
    });
    expect((await add("shop.customer")).label).toBe("shop.customer");
    await expect(add("people")).rejects.toThrow('"people" is not a table that can be replicated');
    await expect(add("custumer")).rejects.toThrow('no table "custumer". Did you mean "customer"?');
  });
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
  const signal = new AbortController().signal;
  const options = { master, slave, tables: [], log: testLog(), signal };
  await replicateOnce(await prepareReplication(options), options, () => {});
  const [name = ""] = (await slaveDrop(slave))?.names ?? [];
  expect(await source.query("select from erserver.consumer")).toHaveLength(1);
  expect(await masterForget(master, name)).toBe(true);
  expect(await source.query("select from erserver.consumer")).toHaveLength(0);
  expect(await masterForget(master, name)).toBe(false);
  expect(await masterDrop(master)).toEqual({ tables: 1 });
  for (const database of [source, target])
    expect(await database.query("select from pg_namespace where nspname = 'erserver'")).toHaveLength(0);
});
