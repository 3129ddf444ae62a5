import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { freshDatabase, sharedCluster, testMajor } from "../support/clusters.ts";
import { configFile, done, masterAndSlave, rserv, startRserv } from "../support/commands.ts";
import { expectEqualTables } from "../support/compare.ts";
import { until } from "../support/wait.ts";

const SCHEMA = "create table a (id int primary key, v int, w int);";
const ROWS = "insert into a values (1, 1, 1), (2, 2, 2)";

test("a slave, or a master, that was set back to an older state is compared and made equal again", async () => {
  await using pair = await masterAndSlave({ schema: SCHEMA, rows: ROWS, tables: ["a"] });
  await pair.replicate();
  const [shown] = await pair.slave.query("select lsn, snapshot from erserver.progress");
  for (const v of [10, 20]) {
    await pair.master.query("update a set v = $1", [v]);
    await pair.replicate();
  }
  // As a backup of the slave has it.
  await pair.slave.query("update erserver.progress set lsn = $1, snapshot = $2", Object.values(shown!));
  await pair.slave.query("update a set v = id");
  expect(await pair.replicate()).toContain("made equal");
  await expectEqualTables(pair.master.url, pair.slave.url);
  // As a slave is that has seen more than there is.
  await pair.slave.query("update erserver.progress set snapshot = '900000000:900000000:'");
  await pair.master.query("update a set v = 30");
  expect(await pair.replicate()).toContain("made equal");
  await expectEqualTables(pair.master.url, pair.slave.url);
  await pair.master.query("delete from a where id = 1");
  expect(await pair.replicate()).toContain("1 row replicated");
});

test("--name of a target of erserver leaves alone what that target has", async () => {
  await using pair = await masterAndSlave({ schema: SCHEMA, rows: ROWS, tables: ["a"] });
  await using other = await freshDatabase(sharedCluster("source"));
  await other.query("create table b (id int primary key)");
  await pair.slave.query("create table b (id int primary key)");
  await using file = await configFile(other.url, { london: pair.slave.url });
  await done(file.run("sync"));
  const { exit, errors } = await rserv("Replicate", pair.master.url, pair.slave.url, "--name", "london");
  expect({ exit, errors }).toEqual({ exit: 4, errors: expect.stringContaining("ERS-410") });
  await done(file.run("sync"));
  await done(file.run("drop"));
});

test("a transaction that is in progress when a table is widened from a column to all is not missed", async () => {
  await using pair = await masterAndSlave({ schema: SCHEMA, rows: ROWS, tables: ["a v"] });
  await pair.replicate();
  const long = await pair.master.connect();
  await long.query("begin; update a set w = 50 where id = 1");
  const adding = done(rserv("MasterAddTable", pair.master.url, "a"));
  await Promise.race([adding, sleep(1_000)]);
  await done(rserv("SlaveAddTable", pair.slave.url, "a"));
  await rserv("Replicate", pair.master.url, pair.slave.url);
  await long.query("commit");
  await adding;
  await pair.expectEqual();
});

test.for([
  ["numeric", "create table n (id numeric primary key, v int, w int);", 10, "1", "1.0"],
  [
    "text whose collation ignores case",
    "create collation ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false); create table n (id text collate ci primary key, v int, w int);",
    12,
    "a",
    "A",
  ],
] as const)(
  "by column, a key that looks different though it is equal is a change: %s",
  async ([, schema, since, id, other], { skip }) => {
    skip(testMajor("source") < since, `PostgreSQL ${since} and newer`);
    await using pair = await masterAndSlave({
      schema,
      rows: `insert into n values ('${id}', 1, 1), ('2', 2, 2)`,
      tables: ["n v"],
    });
    await pair.replicate();
    await pair.master.query(`update n set id = '${other}' where id = '${id}'`);
    await pair.expectEqual();
  },
);

test("a registered column that was renamed can be taken back, and does not keep the master from writing", async () => {
  await using pair = await masterAndSlave({ schema: SCHEMA, rows: ROWS, tables: ["a v"] });
  await pair.replicate();
  for (const side of [pair.master, pair.slave]) await side.query("alter table a rename v to x");
  await pair.replicate();
  await pair.master.query("update a set x = 10, w = 10");
  await pair.expectEqual();
  await done(rserv("MasterAddTable", pair.master.url, "a", "x"));
  await done(rserv("SlaveAddTable", pair.slave.url, "a", "x"));
  await done(rserv("MasterRemoveTable", pair.master.url, "a", "v"));
  await done(rserv("SlaveRemoveTable", pair.slave.url, "a", "v"));
  await pair.master.query("update a set x = 20");
  await pair.expectEqual();
});

test("a table that was renamed on both sides is taken from the slave's register by its old name", async () => {
  await using pair = await masterAndSlave({ schema: SCHEMA, rows: ROWS, tables: ["a"] });
  await pair.replicate();
  for (const side of [pair.master, pair.slave]) await side.query("alter table a rename to b");
  expect(await done(rserv("SlaveRemoveTable", pair.slave.url, "a"))).toContain("public.a removed");
  await done(rserv("SlaveAddTable", pair.slave.url, "b"));
  await pair.master.query("update b set v = 5");
  await pair.expectEqual();
});

test("Replicate --continuous ends when its table is taken out, though another target keeps what is recorded of it", async () => {
  await using pair = await masterAndSlave({ schema: SCHEMA, rows: ROWS, tables: ["a"] });
  await using other = await freshDatabase(sharedCluster("target"));
  await other.query(SCHEMA);
  await using file = await configFile(pair.master.url, { [other.name]: other.url }, "capture: trigger\n");
  await done(file.run("sync"));
  await pair.replicate();
  await using going = startRserv("Replicate", pair.master.url, pair.slave.url, "--continuous");
  await pair.master.query("update a set v = 10");
  await until(async () => (await pair.slave.query("select 1 from a where v = 10")).length > 0, {
    what: "the change",
  });
  // Registered again, or not: what was cleaned in between nobody knows.
  await done(rserv("MasterRemoveTable", pair.master.url, "a"));
  await done(rserv("MasterAddTable", pair.master.url, "a"));
  expect(await going.finished).toBe(5);
  expect(going.terminal.errors).toContain("ERS-503");
  await pair.expectEqual();
});

test("MasterAddTable of a table that a long transaction writes to says what to do, and works when that has ended", async () => {
  await using pair = await masterAndSlave({ schema: SCHEMA, rows: ROWS, tables: [] });
  const long = await pair.master.connect();
  await long.query("begin; update a set v = 5");
  const { exit, errors } = await rserv("MasterAddTable", pair.master.url, "a");
  expect({ exit, errors }).toEqual({
    exit: 5,
    errors: expect.stringContaining("then run the command again"),
  });
  await long.query("commit");
  await done(rserv("MasterAddTable", pair.master.url, "a"));
  await done(rserv("SlaveAddTable", pair.slave.url, "a"));
  await pair.expectEqual();
});
