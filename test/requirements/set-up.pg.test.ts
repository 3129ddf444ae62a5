import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect, test } from "vitest";
import { type FreshDatabase, freshDatabase, sharedCluster } from "../support/clusters.ts";
import { configFile, done, masterAndSlave, rserv } from "../support/commands.ts";
import { expectEqualTables } from "../support/compare.ts";
import { startReplication } from "../support/pipeline-context.ts";
import { until } from "../support/wait.ts";

const CUSTOMER =
  "create table customer (cust_id int primary key, lastname text, firstname text); create index on customer (lastname);";
const CUSTOMERS =
  "insert into customer select i, (array['Gould', 'Brown', 'Gould'])[1 + i % 3], 'f' || i from generate_series(1, 31) i";

/** How a command is told of a database as the chapter does: by its name, and where it is. */
function placed({ name, server }: FreshDatabase): readonly string[] {
  return [name, "--host=127.0.0.1", `--port=${server.port}`, "--user=postgres"];
}

/** Everything in a database that is not the system's or the test's own, and what of ours hangs on the test's tables. */
async function objects(database: FreshDatabase): Promise<string[]> {
  const rows = await database.query<{ object: string }>(
    `select 'relation ' || oid::regclass as object from pg_class where relnamespace = 'public'::regnamespace or relnamespace = to_regnamespace('erserver')
     union all select 'function ' || oid::regprocedure from pg_proc where pronamespace = to_regnamespace('erserver')
     union all select 'trigger ' || tgname || ' on ' || tgrelid::regclass from pg_trigger where not tgisinternal
     union all select 'schema ' || nspname from pg_namespace where nspname = 'erserver'
     union all select 'publication ' || pubname from pg_publication
     union all select 'slot ' || slot_name from pg_replication_slots where database = current_database() order by 1`,
  );
  return rows.map(({ object }) => object);
}

test("S16: databases are called as their owners call them: alike on both sides, differently, or oddly", async () => {
  const unique = randomBytes(4).toString("hex");
  for (const [masterName, slaveName] of [
    [`booktown_${unique}`, `booktown_${unique}`],
    [`booktown_${unique}`, `copy_${unique}`],
    [`it's "Sales" & Co/${unique}`, `東京 ${unique}`],
  ] as const) {
    await using master = await freshDatabase(sharedCluster("source"), { name: masterName });
    await using slave = await freshDatabase(sharedCluster("target"), { name: slaveName });
    for (const database of [master, slave]) await database.query(CUSTOMER);
    await master.query(CUSTOMERS);
    await done(rserv("MasterInit", ...placed(master)));
    await done(rserv("SlaveInit", ...placed(slave)));
    await done(rserv("MasterAddTable", ...placed(master), "customer"));
    await done(rserv("SlaveAddTable", ...placed(slave), "customer"));
    const ports = [`--masterport=${master.server.port}`, `--slaveport=${slave.server.port}`];
    await done(rserv("Replicate", masterName, slaveName, "--host=127.0.0.1", "--user=postgres", ...ports));
    await expectEqualTables(master.url, slave.url);
  }
});

test("S17: the first copy is one snapshot while writers go on, and a dump file of any name can be the beginning instead", async () => {
  const tables = ["a", "b", "c", "d"];
  await using replication = await startReplication({
    schema: tables
      .map((name) => `create table ${name} (id int primary key, amount int, filler text);`)
      .join(""),
    rows: tables
      .map((name) => `insert into ${name} select i, 100, repeat('x', 200) from generate_series(1, 2000) i;`)
      .join(""),
    // What comes after the snapshot stays away.
    config: "apply: { delay: 1h }\ncopy: { jobs: 4 }",
  });
  const { source, target } = replication;
  const writer = await source.connect();
  const copied = async (): Promise<boolean> =>
    (await target.query("select from pg_class where oid = to_regclass('erserver.table_state')")).length > 0 &&
    (await target.query("select from erserver.table_state where state = 'finished_copy'")).length ===
      tables.length;
  for (let i = 1; !(await copied()); i++) {
    const [one, other] = [tables[i % 4], tables[(i + 1 + (i % 3)) % 4]];
    const id = 1 + (i % 2000);
    await writer.query(
      `begin; update ${one} set amount = amount - 1 where id = ${id}; update ${other} set amount = amount + 1 where id = ${id}; commit`,
    );
  }
  // What was written since is not there, so that a table of another snapshot would show.
  await expect(expectEqualTables(source.url, target.url)).rejects.toThrow("source and target differ");
  const [sum] = await target.query<{ sum: number }>(
    `select (${tables.map((name) => `(select sum(amount) from ${name})`).join(" + ")})::int as sum`,
  );
  expect(sum).toEqual({ sum: 4 * 2000 * 100 });

  await using pair = await masterAndSlave({ schema: CUSTOMER, rows: CUSTOMERS, tables: [] });
  const folder = await mkdtemp(path.join(tmpdir(), "erserver-dump-"));
  const file = path.join(folder, "any name.of-dump");
  const rows = await pair.master.query<{ line: string }>(
    "select format('insert into customer values (%L, %L, %L);', cust_id, lastname, firstname) as line from customer",
  );
  await writeFile(file, rows.map(({ line }) => line).join("\n"));
  await pair.slave.query(await readFile(file, "utf8"));
  await rm(folder, { recursive: true });
  await pair.master.query(
    "update customer set firstname = 'since the dump' where cust_id < 4; delete from customer where cust_id = 31",
  );
  for (const [command, database] of [
    ["MasterAddTable", pair.master],
    ["SlaveAddTable", pair.slave],
  ] as const)
    await done(rserv(command, database.url, "customer"));
  await pair.expectEqual();
});

test("S19: `check` lists the roles that a dump needs before it is restored, with their powers, and behind it the owners are equal", async () => {
  await using source = await freshDatabase(sharedCluster("source"));
  await using target = await freshDatabase(sharedCluster("target"));
  const suffix = randomBytes(4).toString("hex");
  const [mark, jennifer, jessica, nobody] = ["mark", "jennifer", "jessica", "uninvolved"].map(
    (name) => `${name}_${suffix}`,
  );
  const dump = `create table customer (cust_id serial primary key); alter table customer owner to ${jennifer};
    create function f() returns int language sql as 'select 1'; alter function f() owner to ${mark}; grant select on customer to ${jessica}`;
  const powers = `select rolname as name, rolcreatedb as databases, rolcreaterole as roles, rolcanlogin as login from pg_roles where rolname like '%${suffix}' order by 1`;
  // MAINTAIN came with 17.
  const owners = `select c.relname as name, pg_get_userbyid(c.relowner) as owner, replace(coalesce(relacl::text, ''), 'm/', '/') as grants from pg_class c where relnamespace = 'public'::regnamespace and relkind in ('r', 'S')
    union all select proname, pg_get_userbyid(proowner), '' from pg_proc where pronamespace = 'public'::regnamespace order by 1`;
  try {
    await source.query(
      `create role ${mark} login createdb createrole; create role ${jennifer} login; create role ${jessica} login; create role ${nobody} login; ${dump}`,
    );
    await using file = await configFile(source.url, { [target.name]: target.url });
    const said = await file.run("check");
    const commands = [...said.output.matchAll(/→ .*?: (CREATE ROLE [^;]*;)/g)].map(
      ([, sql]) => sql as string,
    );
    expect(commands).toEqual([
      `CREATE ROLE "${jennifer}" LOGIN;`,
      `CREATE ROLE "${jessica}" LOGIN;`,
      `CREATE ROLE "${mark}" LOGIN CREATEDB CREATEROLE;`,
    ]);
    await target.query(commands.join(" "));
    await target.query(dump);
    expect(await target.query(owners)).toEqual(await source.query(owners));
    expect(await target.query(powers)).toEqual(
      (await source.query(powers)).filter(({ name }) => name !== nobody),
    );
    expect(await done(file.run("check"))).toContain(`${target.name}: all is there`);
  } finally {
    for (const database of [source, target])
      for (const role of [mark, jennifer, jessica, nobody])
        await database.query(`drop owned by ${role} cascade; drop role ${role}`).catch(() => undefined);
  }
});

test("S20: a slave that is not running is named, with how to start it, and the exit code is not 0", async () => {
  await using pair = await masterAndSlave({ schema: CUSTOMER, tables: ["customer"] });
  const away = new URL(pair.slave.url);
  away.port = "1";
  for (const command of [
    ["SlaveInit", away.toString()],
    ["Replicate", pair.master.url, away.toString()],
  ]) {
    const { exit, output, errors } = await rserv(...command);
    expect({ exit, output }).toEqual({ exit: 3, output: "" });
    expect(errors).toMatch(
      /^ERS-201 {2}postgres@127\.0\.0\.1:1\/[^]*\n {2}→ Start the server \(pg_ctl start/,
    );
  }
});

test("S21: `SlaveInit --createdb` creates the database when it is absent; tables with rows are refused with an explanation, unless they are adopted", async () => {
  await using beside = await freshDatabase(sharedCluster("target"));
  const name = `${beside.name}_new`;
  const place = ["--host=127.0.0.1", `--port=${beside.server.port}`, "--user=postgres"];
  try {
    const absent = await rserv("SlaveInit", name, ...place);
    expect(absent).toMatchObject({ exit: 3, output: "" });
    expect(absent.errors).toMatch(/^ERS-203 [^]*\n {2}→ Create the database \(createdb\)/);
    expect(await done(rserv("SlaveInit", name, "--createdb", ...place))).toContain(
      `${name} is created, and a slave`,
    );
    expect(await done(rserv("SlaveInit", name, "--createdb", ...place))).toContain("already initialized");
  } finally {
    await beside.query(`drop database if exists ${name}`);
  }

  await using source = await freshDatabase(sharedCluster("source"));
  await using target = await freshDatabase(sharedCluster("target"));
  for (const database of [source, target]) await database.query(`${CUSTOMER} ${CUSTOMERS}`);
  await using file = await configFile(source.url, { [target.name]: target.url });
  const refused = await file.run("sync");
  expect(refused.exit).toBe(4);
  expect(refused.errors).toMatch(/^ERS-404 .*public\.customer[^]*→ .*erserver run --adopt/);
  await target.query("update customer set firstname = 'other' where cust_id = 3");
  {
    await using run = file.start("run", "--adopt");
    await until(() => run.terminal.errors.includes("ERS-405"), { what: "what differs to be refused" });
  }
  expect(await target.query("select firstname from customer where cust_id = 3")).toEqual([
    { firstname: "other" },
  ]);
  await target.query("update customer set firstname = 'f3' where cust_id = 3");
  await using run = file.start("run", "--adopt");
  await until(() => run.terminal.output.includes("streaming"), { what: "the rows to be adopted" });
  await source.query("insert into customer values (32, 'New', null)");
  await until(async () => (await target.query("select from customer where cust_id = 32")).length, {
    what: "the change",
  });
  await expectEqualTables(source.url, target.url);
});

test("S22: a missing owner is named with its tables, sequences and functions and the CREATE ROLE that it needs, before anything is restored, and nothing is half there", async () => {
  await using source = await freshDatabase(sharedCluster("source"));
  await using target = await freshDatabase(sharedCluster("target"));
  const pma = `pma_${randomBytes(4).toString("hex")}`;
  const dump = `create table t (id serial primary key); alter table t owner to ${pma}; create function f() returns int language sql as 'select 1'; alter function f() owner to ${pma}`;
  try {
    await source.query(`create role ${pma} login; ${dump}`);
    await using file = await configFile(source.url, { [target.name]: target.url });
    const said = await file.run("check");
    expect(said.exit).toBe(4);
    expect(said.output).toContain(
      `ERS-309  role "${pma}" owns function public.f(), sequence public.t_id_seq, table public.t of the source, and is not on the target\n`,
    );
    expect(said.output).toContain(`CREATE ROLE "${pma}" LOGIN;`);
    expect(await objects(target)).toEqual([]);
    // What it spares: the restore fails, and leaves nothing only because it is one transaction.
    await expect(target.query(dump)).rejects.toThrow(`role "${pma}" does not exist`);
    expect(await objects(target)).toEqual([]);
    await target.query(`create role ${pma} login`);
    await target.query(dump);
    expect(await done(file.run("check"))).toContain("all is there");
  } finally {
    for (const database of [source, target])
      await database.query(`drop owned by ${pma} cascade; drop role ${pma}`).catch(() => undefined);
  }
});

test("S25: what is written between the first copy and the first changes is on the target, once", async () => {
  await using replication = await startReplication({
    // Without a key nothing but a count tells that a row came by the copy and by the changes.
    schema: "create table event (n int); create table t (id int primary key, v text)",
    rows: "insert into t select i, repeat('x', 300) from generate_series(1, 5000) i",
  });
  const { source, target, running } = replication;
  let n = 0;
  while (running.pipeline.status.state !== "streaming") {
    n++;
    await source.query(
      `begin; insert into event values (${n}); insert into t values (${100_000 + n}, 'meanwhile'); update t set v = 'changed' where id = ${n}; delete from t where id = ${5001 - n}; commit`,
    );
  }
  expect(n).toBeGreaterThan(3);
  await replication.expectEqual();
  expect(await target.query("select conflicts::int from erserver.progress")).toEqual([{ conflicts: 0 }]);
});

test("S26: MasterInit takes the database's name, is idempotent and atomic, and has --help and exit codes", async () => {
  await using master = await freshDatabase(sharedCluster("source"));
  // In the way of the last of what it makes.
  await master.query("create schema erserver; create table erserver.consumer (own int)");
  const before = await objects(master);
  const failed = await rserv("MasterInit", ...placed(master));
  expect(failed.exit).toBeGreaterThan(0);
  expect(failed.output).toBe("");
  expect(await objects(master)).toEqual(before);
  await master.query("drop table erserver.consumer");

  await done(rserv("MasterInit", ...placed(master)));
  const made = await objects(master);
  expect(made).toContain("relation erserver.captured_table");
  await done(rserv("MasterInit", ...placed(master)));
  expect(await objects(master)).toEqual(made);
  expect(await done(rserv("MasterInit", "--help"))).toMatch(/^Usage: .*MasterInit \[options\] <masterdb>/);
  expect(await rserv("MasterInit")).toMatchObject({ exit: 2, output: "" });
});

test("S27: MasterInit and SlaveInit say that they were successful, and the second time that it was so already", async () => {
  await using master = await freshDatabase(sharedCluster("source"));
  await using slave = await freshDatabase(sharedCluster("target"));
  for (const [command, role, database] of [
    ["MasterInit", "master", master],
    ["SlaveInit", "slave", slave],
  ] as const) {
    expect(await done(rserv(command, ...placed(database)))).toMatch(
      new RegExp(`^${command}: ${database.name} is a ${role}; next: .*\n$`),
    );
    expect(await done(rserv(command, ...placed(database)))).toBe(
      `${command}: ${database.name} is already initialized as a ${role}\n`,
    );
  }
});

test("S28: MasterAddTable takes database, table and column; one that is absent is named, and nothing is changed", async () => {
  await using pair = await masterAndSlave({ schema: CUSTOMER, tables: [] });
  const [master] = [pair.master];
  const before = await objects(master);
  const table = await rserv("MasterAddTable", ...placed(master), "custommer", "lastname");
  expect(table.exit).toBe(4);
  expect(table.errors).toMatch(/^ERS-401 .*"custommer"[^]*customer/);
  const column = await rserv("MasterAddTable", ...placed(master), "customer", "surname");
  expect(column.exit).toBe(4);
  expect(column.errors).toMatch(/^ERS-402 .*public\.customer.*"surname"[^]*→ .*cust_id, lastname, firstname/);
  expect(await objects(master)).toEqual(before);
  expect(await done(rserv("MasterAddTable", ...placed(master), "customer", "lastname"))).toContain(
    "MasterAddTable: public.customer added, column lastname",
  );
});

test("S29: the column says which changes are replicated, not which row: with a surname that several share, exactly the changed row changes", async () => {
  await using pair = await masterAndSlave({
    schema: CUSTOMER,
    rows: CUSTOMERS,
    tables: ["customer lastname"],
  });
  await pair.expectEqual();
  await pair.master.query(
    "update customer set lastname = 'Nathaniel' where cust_id = 2; delete from customer where cust_id = 5",
  );
  await pair.expectEqual();
  expect(await pair.slave.query("select from customer where lastname = 'Gould'")).toHaveLength(18);
  const help = (await done(rserv("MasterAddTable", "--help"))).replaceAll(/\s+/g, " ");
  expect(help).toContain("With a column: an UPDATE is replicated when it changes that column");
});

test("S30: by column, an UPDATE of other columns is not sent, which is warned of; INSERT and DELETE always are; without a column everything is", async () => {
  await using pair = await masterAndSlave({
    schema: CUSTOMER,
    rows: CUSTOMERS,
    tables: ["customer lastname"],
  });
  const { master, slave } = pair;
  const firstname = async (): Promise<unknown> =>
    (await slave.query("select firstname from customer where cust_id = 10"))[0];
  expect(await done(rserv("MasterAddTable", master.url, "customer", "lastname"))).toContain(
    "an UPDATE of other columns alone is not replicated",
  );
  await pair.expectEqual();
  await master.query(
    "update customer set firstname = 'Dr.' where cust_id = 10; insert into customer values (32, 'New', 'n'); delete from customer where cust_id = 31",
  );
  await pair.replicate();
  expect(await firstname()).toEqual({ firstname: "f10" });
  expect(await slave.query("select cust_id from customer where cust_id > 30")).toEqual([{ cust_id: 32 }]);
  // The row goes whole.
  await master.query("update customer set lastname = 'Nathaniel' where cust_id = 10");
  await pair.expectEqual();
  const [pipeline] = await slave.query<{ name: string }>("select name from erserver.pipeline");
  await using file = await configFile(master.url, { [pipeline?.name ?? ""]: slave.url });
  expect(await done(file.run("status"))).toMatch(
    /ERS-308 .*public\.customer is replicated by column: .*the target differs/,
  );

  for (const [command, database] of [
    ["MasterAddTable", master],
    ["SlaveAddTable", slave],
  ] as const)
    expect(await done(rserv(command, database.url, "customer"))).toContain("all columns");
  await master.query("update customer set firstname = 'sent' where cust_id = 12");
  await pair.expectEqual();
});

test("S31: running MasterAddTable again with another column adds it, and both are listed", async () => {
  await using pair = await masterAndSlave({
    schema: CUSTOMER,
    rows: CUSTOMERS,
    tables: ["customer lastname"],
  });
  const { master, slave } = pair;
  await pair.expectEqual();
  for (const [command, database] of [
    ["MasterAddTable", master],
    ["SlaveAddTable", slave],
  ] as const)
    expect(await done(rserv(command, database.url, "customer", "firstname"))).toContain(
      `${command}: public.customer widened, columns firstname, lastname`,
    );
  await master.query(
    "update customer set firstname = 'by the second' where cust_id = 10; update customer set lastname = 'by the first' where cust_id = 11",
  );
  await pair.expectEqual();
});

test("S32: every init and add command run three times leaves what it left the first time, without an error", async () => {
  await using pair = await masterAndSlave({
    schema: CUSTOMER,
    rows: CUSTOMERS,
    tables: ["customer lastname"],
  });
  const { master, slave } = pair;
  const made = [await objects(master), await objects(slave)];
  for (let again = 0; again < 2; again++) {
    await done(rserv("MasterInit", master.url));
    await done(rserv("SlaveInit", slave.url));
    expect(await done(rserv("MasterAddTable", master.url, "customer", "lastname"))).toContain(
      "MasterAddTable: public.customer already added, column lastname",
    );
    await done(rserv("SlaveAddTable", slave.url, "customer", "lastname"));
  }
  expect([await objects(master), await objects(slave)]).toEqual(made);
  await pair.expectEqual();

  await using source = await freshDatabase(sharedCluster("source"));
  await using target = await freshDatabase(sharedCluster("target"));
  for (const database of [source, target]) await database.query(CUSTOMER);
  await using file = await configFile(source.url, { [target.name]: target.url });
  await done(file.run("init"));
  const initialized = [await objects(source), await objects(target)];
  for (let again = 0; again < 2; again++)
    // An old server's limits are told each time.
    expect(await done(file.run("init"))).toContain(`${target.name}: already initialized\n`);
  expect([await objects(source), await objects(target)]).toEqual(initialized);
});

test("S33: removing a table and dropping master and slave leave no trigger, function, table, sequence, slot or publication; writers go on, and it can be set up again", async () => {
  await using pair = await masterAndSlave({
    schema: `${CUSTOMER} create table other (id int primary key);`,
    rows: CUSTOMERS,
    tables: ["customer lastname", "other"],
  });
  const { master, slave } = pair;
  await pair.expectEqual();
  expect(await done(rserv("MasterRemoveTable", master.url, "other"))).toBe(
    "MasterRemoveTable: public.other removed\n",
  );
  expect((await objects(master)).filter((object) => object.includes(" on other"))).toEqual([]);
  await master.query("insert into other values (1)");
  await done(rserv("SlaveRemoveTable", slave.url, "other"));
  await pair.expectEqual(["public.customer"]);
  // What it advises is what the master knows the slave by.
  const advice = /run: (MasterDrop) MASTERDB (--slave=\S+)\n$/.exec(
    await done(rserv("SlaveDrop", slave.url)),
  );
  expect(await done(rserv("MasterDrop", master.url, advice?.[2] ?? ""))).toContain("is forgotten");
  await done(rserv("MasterDrop", master.url));
  const own = [
    "relation customer",
    "relation customer_lastname_idx",
    "relation customer_pkey",
    "relation other",
    "relation other_pkey",
  ];
  expect(await objects(master)).toEqual(own);
  expect(await objects(slave)).toEqual(own);
  await master.query(
    "update customer set lastname = 'free' where cust_id = 1; truncate other; delete from customer where cust_id = 2",
  );

  await using file = await configFile(
    master.url,
    { [slave.name]: slave.url },
    "tables: { include: [public.other] }\n",
  );
  await done(file.run("sync"));
  await done(file.run("drop"));
  expect(await objects(master)).toEqual(own);
  expect(await objects(slave)).toEqual(own);

  await done(rserv("MasterInit", master.url));
  await done(rserv("SlaveInit", slave.url));
  await done(rserv("MasterAddTable", master.url, "customer", "lastname"));
  await done(rserv("SlaveAddTable", slave.url, "customer", "lastname"));
  await pair.expectEqual(["public.customer"]);
});

test("S34: SlaveInit is as MasterInit, and runs from any machine with --host", async () => {
  await using slave = await freshDatabase(sharedCluster("target"));
  await slave.query("create schema erserver; create table erserver.slave_table (own int)");
  const before = await objects(slave);
  expect((await rserv("SlaveInit", ...placed(slave))).exit).toBeGreaterThan(0);
  expect(await objects(slave)).toEqual(before);
  await slave.query("drop table erserver.slave_table");
  expect(await done(rserv("SlaveInit", ...placed(slave)))).toContain("is a slave");
  const made = await objects(slave);
  await done(rserv("SlaveInit", ...placed(slave)));
  expect(await objects(slave)).toEqual(made);
  expect(await done(rserv("SlaveInit", "--help"))).toMatch(/<slavedb>[^]*--host <host>/);
});

test("S35: SlaveAddTable takes what MasterAddTable takes; absent tables and other types are refused", async () => {
  await using pair = await masterAndSlave({ schema: "", tables: [] });
  const { master, slave } = pair;
  await master.query("create table customer (cust_id int primary key, lastname text)");
  await slave.query("create table customer (cust_id int primary key, lastname int)");
  expect((await rserv("SlaveAddTable", ...placed(slave), "absent", "lastname")).errors).toMatch(
    /^ERS-401 .*"absent"/,
  );
  expect((await rserv("SlaveAddTable", ...placed(slave), "customer", "absent")).errors).toMatch(
    /^ERS-402 .*"absent"/,
  );
  const usage = async (command: string): Promise<string> =>
    (await done(rserv(command, "--help"))).split("\n")[0] ?? "";
  expect((await usage("SlaveAddTable")).replaceAll(/slave/gi, "")).toBe(
    (await usage("MasterAddTable")).replaceAll(/master/gi, ""),
  );
  await done(rserv("MasterAddTable", ...placed(master), "customer", "lastname"));
  await done(rserv("SlaveAddTable", ...placed(slave), "customer", "lastname"));
  const { exit, output, errors } = await rserv("Replicate", master.url, slave.url);
  expect({ exit, output }).toEqual({ exit: 4, output: "" });
  expect(errors).toMatch(/^ERS-403 .*lastname/);
});

test("S36: registrations that differ between master and slave are reported before any data moves", async () => {
  await using pair = await masterAndSlave({ schema: CUSTOMER, rows: CUSTOMERS, tables: [] });
  const { master, slave } = pair;
  await done(rserv("MasterAddTable", master.url, "customer", "firstname"));
  await done(rserv("SlaveAddTable", slave.url, "customer", "lastname"));
  const { exit, output, errors } = await rserv("Replicate", master.url, slave.url);
  expect({ exit, output }).toEqual({ exit: 4, output: "" });
  expect(errors).toMatch(
    /^ERS-413 .*public\.customer .*slave with column lastname, on the master with column firstname\n {2}→ /,
  );
  expect(await slave.query("select from customer")).toEqual([]);
  expect(await master.query("select from erserver.consumer")).toEqual([]);
  await done(rserv("MasterAddTable", master.url, "customer", "lastname"));
  await done(rserv("SlaveAddTable", slave.url, "customer", "firstname"));
  await pair.expectEqual();
});
