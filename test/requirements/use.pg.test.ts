import { randomBytes } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { expect, test } from "vitest";
import { loadBooktown, loadBooktownSchema } from "../../src/demo/booktown.ts";
import { freshDatabase, sharedCluster, testMajor } from "../support/clusters.ts";
import { configFile, done, masterAndSlave, rserv } from "../support/commands.ts";
import { expectEqualTables } from "../support/compare.ts";
import { until } from "../support/wait.ts";

const root = path.join(import.meta.dirname, "../..");
const T = "create table t (id int primary key, v text);";

test("S37: `UPDATE customer SET lastname = 'Nathaniel' WHERE cust_id = 10` on the master arrives by the chapter's own commands", async () => {
  await using master = await freshDatabase(sharedCluster("source"));
  // As in the chapter: the same name on both machines.
  await using slave = await freshDatabase(sharedCluster("target"), { name: master.name });
  const booktown = master.name;
  await loadBooktown(master.url);
  await loadBooktownSchema(slave.url);
  const at = ({ server }: typeof master) => ["--user=postgres", "--host=127.0.0.1", `--port=${server.port}`];
  await done(rserv("MasterInit", booktown, ...at(master)));
  await done(rserv("MasterAddTable", booktown, "customer", "lastname", ...at(master)));
  await done(rserv("SlaveInit", booktown, ...at(slave)));
  await done(rserv("SlaveAddTable", booktown, "customer", "lastname", ...at(slave)));
  const replicate = () =>
    done(
      rserv(
        "Replicate",
        "--user=postgres",
        "--host=local",
        "--masterhost=127.0.0.1",
        `--masterport=${master.server.port}`,
        "--slavehost=127.0.0.1",
        `--slaveport=${slave.server.port}`,
        booktown,
        booktown,
      ),
    );
  await replicate();
  await master.query("UPDATE customer SET lastname = 'Nathaniel' WHERE cust_id = 10;");
  expect(await replicate()).toMatch(/^Replicate: 1 row replicated, sync \d+\n$/);
  expect(await slave.query("SELECT lastname FROM customer WHERE cust_id = 10;")).toEqual([
    { lastname: "Nathaniel" },
  ]);
  await expectEqualTables(master.url, slave.url, ["public.customer"]);
});

test("S38: Replicate brings the slave to the master's state of now and ends; with nothing to do it succeeds and says so", async () => {
  await using pair = await masterAndSlave({
    schema: T,
    rows: "insert into t values (1, 'a')",
    tables: ["t"],
  });
  await pair.expectEqual();
  expect(await pair.replicate()).toMatch(/^Replicate: nothing to do, the databases are in sync, sync \d+\n$/);
  await pair.master.query("insert into t values (2, 'b')");
  expect(await pair.replicate()).toMatch(/^Replicate: 1 row replicated/);
  await expectEqualTables(pair.master.url, pair.slave.url);
  expect(await pair.replicate()).toContain("nothing to do");
});

test("S39: --user, --host and --port are for both sides and --master… and --slave… win; an unknown flag and a password on the command line are errors", async () => {
  await using pair = await masterAndSlave({
    schema: T,
    rows: "insert into t values (1, 'a')",
    tables: ["t"],
  });
  const { master, slave } = pair;
  const [masterPort, slavePort] = [master.server.port, slave.server.port];
  const names = [master.name, slave.name];
  const calls: readonly (readonly string[])[] = [
    ["--user=postgres", "--host=127.0.0.1", `--masterport=${masterPort}`, `--slaveport=${slavePort}`],
    [
      "--user",
      "postgres",
      "--host",
      "127.0.0.1",
      "--port",
      String(masterPort),
      "--slaveport",
      String(slavePort),
    ],
    [
      "--user=pma_absent",
      "--masteruser=postgres",
      "--slaveuser=postgres",
      "--host=nowhere.invalid",
      "--masterhost=127.0.0.1",
      "--slavehost=127.0.0.1",
      "--port=1",
      `--masterport=${masterPort}`,
      `--slaveport=${slavePort}`,
    ],
  ];
  for (const [n, call] of calls.entries()) {
    await master.query(`insert into t values (${n + 10}, 'x')`);
    await done(rserv("Replicate", ...call, ...names));
    await expectEqualTables(master.url, slave.url);
  }
  // Each of them counts: without it another server, role or port is asked.
  const where = async (...call: string[]): Promise<string> =>
    (await rserv("Replicate", ...call, ...names)).errors;
  expect(await where("--host=127.0.0.1", "--port=1", "--user=one", "--masterport=2")).toContain(
    "one@127.0.0.1:2/",
  );
  expect(await where("--host=127.0.0.1", "--port=1", "--user=one", "--masteruser=two")).toContain(
    "two@127.0.0.1:1/",
  );
  expect(
    await where(
      "--user=postgres",
      "--host=127.0.0.1",
      `--port=${masterPort}`,
      "--slaveuser=three",
      "--slaveport=1",
    ),
  ).toContain("three@127.0.0.1:1/");

  for (const flag of ["--masterhsot=x", "--password=hunter2", "--slavepassword=hunter2"]) {
    const { exit, output, errors } = await rserv("Replicate", flag, ...names);
    expect({ exit, output }).toEqual({ exit: 2, output: "" });
    expect(errors).toMatch(/^ERS-106 /);
    expect(errors).not.toContain("hunter2");
  }
  for (const whole of ["postgres://u:hunter#2@127.0.0.1:1/x", "host=127.0.0.1 port='1'password=hunter2"]) {
    const { exit, errors } = await rserv("MasterInit", whole);
    expect({ exit, errors }).toEqual({ exit: 2, errors: expect.stringMatching(/^ERS-106 .* password/) });
    expect(errors).not.toContain("hunter");
  }
});

test("S40: every outcome prints one message, of success or of error, and the exit code is 0 only when it was applied", async () => {
  await using pair = await masterAndSlave({
    schema: T,
    rows: "insert into t values (1, 'a')",
    tables: ["t"],
  });
  const { master, slave } = pair;
  const away = new URL(slave.url);
  away.port = "1";
  const good: readonly (readonly string[])[] = [
    ["MasterInit", master.url],
    ["SlaveInit", slave.url],
    ["MasterAddTable", master.url, "t"],
    ["SlaveAddTable", slave.url, "t"],
    ["Replicate", master.url, slave.url],
    ["Replicate", master.url, slave.url],
    ["GetSyncID", slave.url],
    ["CleanLog", master.url],
    ["MasterRemoveTable", master.url, "t"],
    ["SlaveRemoveTable", slave.url, "t"],
    ["SlaveDrop", slave.url],
    ["MasterDrop", master.url],
  ];
  const bad: readonly (readonly string[])[] = [
    ["Replicate", master.url, away.toString()],
    ["MasterAddTable", master.url, "absent"],
    ["SlaveAddTable", slave.url, "t", "absent"],
    ["GetSyncID", away.toString()],
    ["Replicate", master.url],
    ["MasterInit"],
  ];
  for (const call of [...bad, ...good, ...bad]) {
    const said = await rserv(...call);
    const messages = [said.output, said.errors].filter((text) => text !== "");
    expect(messages, call.join(" ")).toHaveLength(1);
    if (good.includes(call)) {
      expect(said).toMatchObject({ exit: 0, errors: "" });
      expect(said.output).toMatch(new RegExp(`^${call[0]}: [^\n]*\n$`));
    } else {
      expect(said.exit).toBeGreaterThan(0);
      expect(said.errors).toMatch(/^ERS-\d{3} {2}[^\n]+\n {2}→ [^\n]+\n$/);
    }
  }
  expect(await slave.query("select id from t")).toEqual([{ id: 1 }]);
});

test("S41: the slave is read while it is replicated to, and `verify` shows the row on both sides", async () => {
  await using source = await freshDatabase(sharedCluster("source"));
  await using target = await freshDatabase(sharedCluster("target"));
  for (const database of [source, target]) await database.query(T);
  await source.query("insert into t values (10, 'John')");
  const { name } = target;
  await using file = await configFile(source.url, { [name]: target.url });
  await using run = file.start("run");
  await until(() => run.terminal.output.includes("streaming"), { what: "the target to follow" });
  await source.query(
    "begin; insert into t select i, 'x' from generate_series(100, 20000) i; update t set v = 'Nathaniel' where id = 10; commit",
  );
  const reader = await target.connect();
  await reader.query("set lock_timeout = '1ms'");
  const seen = new Set<string>();
  while (!seen.has("19902 Nathaniel")) {
    const { rows } = await reader.query<{ seen: string }>(
      "select (select count(*) from t) || ' ' || v as seen from t where id = 10",
    );
    seen.add(rows[0]?.seen ?? "");
  }
  // Nothing in between, and no reader ever waited for a lock.
  expect([...seen].filter((state) => !["1 John", "19902 Nathaniel"].includes(state))).toEqual([]);
  const verified = JSON.parse(await done(file.run("verify", "--json"))) as object;
  expect(verified).toMatchObject({
    equal: true,
    tables: [{ table: "public.t", sourceRows: 19_902, targetRows: 19_902 }],
  });
  expect(await run.stop()).toBe(0);
});

test("S43: RservTest shows Update, Replicate and Show, with `n/a` until the row has arrived, and does it by itself with --headless; InitRservTest makes its databases", async () => {
  const suffix = randomBytes(4).toString("hex");
  const [master, slave] = [`master_${suffix}`, `slave_${suffix}`];
  await using source = await freshDatabase(sharedCluster("source"));
  await using target = await freshDatabase(sharedCluster("target"));
  const place = [
    "--host=127.0.0.1",
    "--user=postgres",
    `--masterport=${source.server.port}`,
    `--slaveport=${target.server.port}`,
  ];
  try {
    await done(rserv("InitRservTest", ...place, master, slave));
    // They would be dropped: nobody has agreed to that.
    const again = await rserv("InitRservTest", ...place, master, slave);
    expect(again).toMatchObject({ exit: 2, output: "" });
    expect(await done(rserv("RservTest", "--headless", ...place, master, slave))).toMatch(
      /^Update: .*\nShow: n\/a\nReplicate: .*\nShow: RservTest [0-9a-f]+\nRservTest: the row has arrived\n$/,
    );
    await expectEqualTables(source.server.url(master), target.server.url(slave));
    expect(await done(rserv("InitRservTest", "--yes", ...place, master, slave))).toContain("are made");
  } finally {
    await source.query(`drop database if exists ${master}`);
    await target.query(`drop database if exists ${slave}`);
  }
});

test("S44: the help of every command names the side that it is for, and one that is run on the wrong side says so", async () => {
  for (const command of ["MasterInit", "MasterAddTable", "MasterRemoveTable", "MasterDrop", "CleanLog"])
    expect(await done(rserv(command, "--help"))).toMatch(/<masterdb>(?![^]*<slavedb>)/);
  for (const command of ["SlaveInit", "SlaveAddTable", "SlaveRemoveTable", "SlaveDrop", "GetSyncID"])
    expect(await done(rserv(command, "--help"))).toMatch(/<slavedb>(?![^]*<masterdb>)/);
  expect(await done(rserv("Replicate", "--help"))).toMatch(/<masterdb> <slavedb>/);

  await using pair = await masterAndSlave({ schema: T, tables: ["t"] });
  const { master, slave } = pair;
  for (const [call, said] of [
    [["MasterAddTable", slave.url, "t"], /^ERS-407 .*is no master: SlaveInit was run there, it is a slave\n/],
    [
      ["SlaveAddTable", master.url, "t"],
      /^ERS-407 .*is no slave: MasterInit was run there, it is a master\n/,
    ],
    [["CleanLog", slave.url], /^ERS-407 .*is no master/],
    [["GetSyncID", master.url], /^ERS-407 .*is no slave/],
    [["Replicate", slave.url, master.url], /^ERS-407 .*it is a/],
  ] as const) {
    const { exit, errors } = await rserv(...call);
    expect(exit).toBe(4);
    expect(errors).toMatch(said);
  }
  // It may be meant so.
  expect(await done(rserv("SlaveInit", master.url))).toContain("is a slave, and stays a master");
});

test("S45: day-to-day work needs no superuser but the README's grants, and ordinary writers need nothing", async () => {
  await using source = await freshDatabase(sharedCluster("source"));
  await using target = await freshDatabase(sharedCluster("target"));
  const suffix = randomBytes(4).toString("hex");
  const [pma, writer] = [`pma_${suffix}`, `jennifer_${suffix}`];
  for (const database of [source, target]) await database.query(T);
  await source.query("insert into t values (1, 'a')");
  const grants = await readmeGrants();
  const as = ({ server, name }: typeof source): string => server.url(name, pma);
  try {
    // The last block is for sources that are followed by triggers.
    await source.query(
      `create role ${pma} login; ${grants.trigger.replaceAll("replicator", pma).replaceAll("booktown", source.name)}`,
    );
    const parameter = /GRANT SET ON PARAMETER.*/;
    const granted = testMajor("target") < 15 ? grants.target.replace(parameter, "") : grants.target;
    await target.query(granted.replaceAll("replicator", pma));
    await source.query(`create role ${writer} login; grant select, insert, update, delete on t to ${writer}`);
    await using file = await configFile(as(source), { [target.name]: as(target) });
    await done(file.run("sync"));
    const session = await source.connect(writer);
    await session.query(
      "insert into t values (2, 'b'); update t set v = 'c' where id = 1; delete from t where id = 1; insert into t values (3, null)",
    );
    await done(file.run("sync"));
    await expectEqualTables(source.url, target.url, ["public.t"]);
    await done(file.run("status"));
    await done(file.run("verify"));
    for (const database of [source, target])
      expect(
        await database.query(
          `select rolsuper as super, rolreplication as replication from pg_roles where rolname = '${pma}'`,
        ),
      ).toEqual([{ super: false, replication: false }]);
    await done(file.run("drop"));
    await session.end();
  } finally {
    for (const database of [source, target])
      for (const role of [pma, writer])
        await database.query(`drop owned by ${role} cascade; drop role ${role}`).catch(() => undefined);
  }
});

/** What the README tells to run, by its blocks of SQL. */
async function readmeGrants(): Promise<{ target: string; trigger: string }> {
  const blocks = [
    ...(await readFile(path.join(root, "README.md"), "utf8")).matchAll(/```sql\n([^]*?)```/g),
  ].map(([, sql]) => sql as string);
  const target = blocks[0]?.split("-- on a target")[1];
  const trigger = blocks[1];
  if (target === undefined || trigger === undefined)
    throw new Error("the README has no grants where they were");
  return { target: target.slice(target.indexOf("\n")), trigger };
}

test("S46: the old commands are there by their names, as executables too; GetSyncID and CleanLog speak of positions, and what a slave still needs is never removed", async () => {
  const names = [
    "MasterInit",
    "MasterAddTable",
    "SlaveInit",
    "SlaveAddTable",
    "Replicate",
    "GetSyncID",
    "CleanLog",
    "MasterSync",
    "PrepareSnapshot",
    "ApplySnapshot",
    "InitRservTest",
    "RservTest",
  ];
  const files = await readdir(path.join(root, "rserv"));
  expect(files).toEqual(expect.arrayContaining(names));
  for (const name of files) {
    expect(await readFile(path.join(root, "rserv", name), "utf8")).toContain(` rserv ${name} "$@"`);
    expect((await done(rserv(name, "--help"))).split("\n")[0]).toContain(` ${name} `);
  }

  await using pair = await masterAndSlave({
    schema: T,
    rows: "insert into t values (1, 'a')",
    tables: ["t"],
  });
  const { master, slave } = pair;
  await pair.expectEqual();
  const position = async (): Promise<number> =>
    Number(await done(rserv("GetSyncID", slave.url, "--noverbose")));
  const first = await position();
  await master.query("update t set v = 'b'; insert into t values (2, 'c')");
  const logged = async (): Promise<number> => {
    const [row] = await master.query<{ n: number }>("select count(*)::int as n from erserver.log_1");
    return row?.n ?? 0;
  };
  const before = await logged();
  expect(before).toBeGreaterThan(0);
  // It is asked for more than the slave has.
  const refused = await rserv("CleanLog", master.url, String(first + 1000));
  expect(refused.exit).toBe(4);
  expect(refused.errors).toMatch(new RegExp(`^ERS-414 .*is at ${first}; what they need stays`));
  expect(await logged()).toBe(before);
  await pair.expectEqual();
  expect(await position()).toBeGreaterThan(first);
  expect(await done(rserv("CleanLog", master.url, String(await position())))).toMatch(
    /^CleanLog: \d+ log records? removed\n$/,
  );
  expect(await logged()).toBe(0);
});
