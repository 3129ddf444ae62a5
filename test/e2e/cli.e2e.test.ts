import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { type Cluster, startCluster } from "../../src/demo/cluster.ts";
import { BuiltCli } from "../support/built-cli.ts";
import { type FreshDatabase, freshDatabase, testMajor } from "../support/clusters.ts";
import { startProxy } from "../support/proxy.ts";
import { until } from "../support/wait.ts";

// Each command is a process of its own, and a test calls several.
vi.setConfig({ testTimeout: 120_000 });

/** Slots, and the names in them, belong to a server: these tests have their own. */
let servers: { source: Cluster; target: Cluster };
let cli: BuiltCli;
let folder: string;
let config: string;
let source: FreshDatabase;
let london: FreshDatabase;
let tokyo: FreshDatabase;

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), "erserver-cli-e2e-"));
  config = path.join(folder, "erserver.yaml");
  const [built, sourceServer, target] = await Promise.all([
    BuiltCli.build(),
    startCluster({ major: testMajor("source") }),
    startCluster({ major: testMajor("target") }),
  ]);
  cli = built;
  servers = { source: sourceServer, target };
});

afterAll(async () => {
  await Promise.all([cli[Symbol.asyncDispose](), servers.source.dispose(), servers.target.dispose()]);
  rmSync(folder, { recursive: true });
});

const TABLE = "create table account (id int primary key, balance numeric(12, 2))";

beforeEach(async () => {
  [source, london, tokyo] = await Promise.all([
    freshDatabase(servers.source),
    freshDatabase(servers.target),
    freshDatabase(servers.target),
  ]);
  for (const database of [source, london, tokyo]) await database.query(TABLE);
  await source.query("insert into account select i, i from generate_series(1, 3) i");
  configure({ london: london.url, tokyo: tokyo.url });
});

afterEach(async () => {
  for (const database of [source, london, tokyo]) await database[Symbol.asyncDispose]();
});

function configure(targets: Readonly<Record<string, string>>, more = ""): void {
  const lines = Object.entries(targets).map(([name, url]) => `  ${name}: ${url}\n`);
  writeFileSync(config, `source: ${source.url}\ntargets:\n${lines.join("")}${more}`);
}

const erserver = (command: string, ...args: string[]) => cli.run(command, "-c", config, ...args);
const start = (command: string, ...args: string[]) => cli.start(command, "-c", config, ...args);
const LSN = "[0-9A-F]+/[0-9A-F]+";

const slots = () =>
  source.query("select slot_name from pg_replication_slots where database = current_database()");
const json = (text: string): unknown[] =>
  text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as unknown);

describe("a wrong call", () => {
  test("is refused by the real command too, with exit code 2", async () => {
    expect(await cli.run("run", "--jsno")).toMatchObject({
      exit: 2,
      output: "",
      errors: expect.stringMatching(/^ERS-106 {2}unknown option '--jsno'/),
    });
  });

  test("of a broken configuration names the place", async () => {
    writeFileSync(config, "source: postgres://a@b/c\ntarget: {}\n");
    const { exit, errors } = await erserver("run");
    expect(exit).toBe(2);
    expect(errors).toMatch(/^ERS-103 [^]*erserver\.yaml:2:1: [^]*target/);
  });
});

test("init says what it made, and the second time that it had nothing to do", async () => {
  const first = await erserver("init");
  expect(first).toMatchObject({ exit: 0, errors: "" });
  for (const name of ["london", "tokyo"]) {
    expect(first.output).toContain(`${name}: created publication erserver_${name} on the source\n`);
    expect(first.output).toContain(`${name}: created replication slot erserver_${name} on the source\n`);
  }
  expect(await erserver("init")).toMatchObject({
    exit: 0,
    output: "london: already initialized\ntokyo: already initialized\n",
  });
});

test("sync copies, applies what came since, and says when there is nothing to do", async () => {
  const first = await erserver("sync");
  expect(first).toMatchObject({ exit: 0, errors: "" });
  expect(first.output).toMatch(new RegExp(`^london: tables copied, now at ${LSN}$`, "m"));
  await source.query("update account set balance = 0; insert into account values (4, 4)");
  const second = await erserver("sync", "--target", "london");
  expect(second.output).toMatch(new RegExp(`^london: 1 transaction \\(4 rows\\) applied, now at ${LSN}\n$`));
  const third = await erserver("sync", "--json", "--target", "london");
  expect(json(third.output)).toEqual([
    expect.objectContaining({ target: "london", transactions: 0, copied: false, waitedForOther: false }),
  ]);
  expect((await erserver("sync", "--target", "london")).output).toMatch(/^london: nothing to do, at /);
  expect((await erserver("sync")).output).toMatch(/^tokyo: 1 transaction \(4 rows\) applied/m);
});

test("S42: sync --every goes on until it is told to end, and an outage keeps it from one time only", async () => {
  using network = await startProxy({ target: { port: servers.target.port } });
  configure({ london: network.url(london.url) });
  await using running = start("sync", "--every", "1s");
  await running.prints(/london: tables copied/);
  for (const id of [10, 11]) {
    await source.query(`insert into account values (${id}, 1)`);
    await until(async () => (await london.query(`select from account where id = ${id}`)).length, {
      what: "the row, at its time",
    });
  }
  network.refuse();
  network.cut();
  await source.query("insert into account values (12, 1)");
  await until(() => running.errors.includes("ERS-201"), { what: "the outage to be told" });
  await network.accept();
  await until(async () => (await london.query("select from account where id = 12")).length, {
    what: "the row behind the outage",
  });
  running.process.kill("SIGTERM");
  expect(await running.finished).toMatchObject({ exit: 0 });
});

test("sync --every ends with what somebody has to mend", async () => {
  await london.query("drop table account");
  const { exit, errors } = await erserver("sync", "--every", "1s", "--target", "london");
  expect({ exit, errors }).toEqual({ exit: 4, errors: expect.stringContaining("ERS-401") });
});

test("run follows until SIGTERM, says each state once, and leaves its slots for the next time", async () => {
  await using running = start("run");
  await running.prints(/london {2}streaming[^]*tokyo {3}streaming|tokyo {3}streaming[^]*london {2}streaming/);
  await source.query("insert into account values (4, 4)");
  await until(async () => (await tokyo.query("select from account where id = 4")).length, {
    what: "the row",
  });
  // A running erserver does the work of sync.
  expect((await erserver("sync", "--target", "london")).output).toMatch(
    /^london: the running erserver has brought it to /,
  );
  running.process.kill("SIGTERM");
  const { exit, output } = await running.finished;
  expect(exit).toBe(0);
  expect(output.match(/london {2}streaming/g)).toHaveLength(1);
  expect(output).toMatch(new RegExp(`^london: ended after 1 transaction \\(1 row\\), at ${LSN}$`, "m"));
  expect(await slots()).toHaveLength(2);
});

test("run --json prints one event a line", async () => {
  await using running = start("run", "--json");
  await running.prints(/"london","state":"streaming"/);
  running.process.kill("SIGINT");
  const { exit, output } = await running.finished;
  expect(exit).toBe(0);
  expect(json(output)).toContainEqual(expect.objectContaining({ event: "state", target: "tokyo" }));
});

test("a target that stops does not stop the other; run ends with its code, also when a signal ends the others", async () => {
  await tokyo.query("insert into account values (99, 99)");
  await using running = start("run");
  await running.prints(/tokyo {3}stopped/);
  await running.prints(/london {2}streaming/);
  await until(() => running.errors.includes("ERS-404"), { what: "the error" });
  expect(running.errors).toMatch(/^ERS-404 {2}tokyo: .*account[^]*\n {2}→ /m);
  await source.query("insert into account values (4, 4)");
  await until(async () => (await london.query("select from account where id = 4")).length, {
    what: "the row",
  });
  expect(running.process.exitCode).toBeNull();
  running.process.kill("SIGTERM");
  expect(await running.finished).toMatchObject({ exit: 4 });

  const { exit, errors } = await erserver("run", "--target", "tokyo");
  expect(exit).toBe(4);
  expect(errors.match(/^ERS-404/gm)).toHaveLength(1);
  expect(await tokyo.query("select id from account")).toEqual([{ id: 99 }]);
});

test("--adopt accepts a target that has the rows already", async () => {
  await london.query("insert into account select i, i from generate_series(1, 3) i");
  await using running = start("run", "--adopt", "--target", "london");
  await running.prints(/london {2}streaming/);
});

test("status tells the state of every target, before, while and after it is served, also as JSON", async () => {
  expect((await erserver("status")).output).toMatch(/^london {2}stopped[^]*ERS-407/m);
  {
    await using running = start("run");
    await running.prints(/london {2}streaming/);
    await running.prints(/tokyo {3}streaming/);
    const rows = await until(
      async () => {
        const [parsed] = json((await erserver("status", "--json")).output) as [Record<string, unknown>[]];
        return parsed.every(({ state, lagBytes }) => state === "streaming" && lagBytes === 0) && parsed;
      },
      { what: "both to stream without lag" },
    );
    expect(rows).toEqual([
      expect.objectContaining({
        target: "london",
        lagSeconds: 0,
        running: true,
        tables: { total: 1, copied: 1 },
        position: expect.stringMatching(LSN),
      }),
      expect.objectContaining({ target: "tokyo" }),
    ]);
    expect((await erserver("status", "--target", "tokyo")).output).not.toContain("london");
    running.process.kill("SIGTERM");
    await running.finished;
  }
  const { exit, output } = await erserver("status");
  expect(exit).toBe(0);
  expect(output).toMatch(/^london {2}stopped[^]*london: no erserver is running/m);
});

test("status --watch goes on until it is told to end", async () => {
  await using watching = start("status", "--watch", "--json");
  await watching.prints(/\n[^]*\n/);
  watching.process.kill("SIGINT");
  const { exit, output } = await watching.finished;
  expect(exit).toBe(0);
  expect(json(output).length).toBeGreaterThan(1);
});

test("verify ends well when all is equal, and with exit code 1 and the table's name when it is not (S8, S41)", async () => {
  await erserver("sync");
  const equal = await erserver("verify");
  expect(equal).toMatchObject({ exit: 0, errors: "" });
  expect(equal.output).toMatch(new RegExp(`^london: 1 table \\(3 rows\\) equal, compared at ${LSN}$`, "m"));

  await tokyo.query("update account set balance = 7 where id = 2; insert into account values (9, 9)");
  const different = await erserver("verify");
  expect(different.exit).toBe(1);
  expect(different.output).toMatch(/^london: 1 table \(3 rows\) equal/m);
  expect(different.output).toMatch(/^tokyo: 1 of 1 table different.*\ntable .*\npublic\.account +3 +4\n/m);
  expect(different.errors).toMatch(/^ERS-801 {2}tokyo: .*public\.account\n {2}→ /);

  const asJson = await erserver("verify", "--json", "--target", "tokyo");
  expect(asJson.exit).toBe(1);
  expect(json(asJson.output)).toEqual([
    {
      target: "tokyo",
      position: expect.stringMatching(LSN),
      equal: false,
      tables: [{ table: "public.account", equal: false, insertsOnly: false, sourceRows: 3, targetRows: 4 }],
    },
  ]);
});

test("drop says each thing that it removes, leaves none, and keeps the rows", async () => {
  await erserver("sync");
  const dropped = await erserver("drop");
  expect(dropped).toMatchObject({ exit: 0, errors: "" });
  for (const name of ["london", "tokyo"]) {
    expect(dropped.output).toContain(`${name}: removed replication slot erserver_${name} on the source\n`);
    expect(dropped.output).toContain(`${name}: removed publication erserver_${name} on the source\n`);
    expect(dropped.output).toContain(`${name}: removed schema erserver on the target\n`);
  }
  expect(await slots()).toEqual([]);
  expect(await source.query("select from pg_publication")).toEqual([]);
  expect(await london.query("select from pg_namespace where nspname = 'erserver'")).toEqual([]);
  expect(await london.query("select from account")).toHaveLength(3);
  expect((await erserver("drop")).output).toBe("london: nothing to remove\ntokyo: nothing to remove\n");
});

test("a server that is away is named once, with what to do, exit code 3, and never the password", async () => {
  await erserver("sync");
  const secret = "hunter2";
  writeFileSync(
    config,
    `source: postgres://bob:${secret}@127.0.0.1:1/shop\ntargets:\n  london: ${london.url}\n  tokyo: ${tokyo.url}\n`,
  );
  for (const [command, names] of [
    ["init", "london, tokyo"],
    ["sync", "london, tokyo"],
    ["verify", "london, tokyo"],
    // It names the slot that would be left, which each has its own.
    ["drop", "london"],
  ] as const) {
    const { exit, errors, output } = await erserver(command);
    expect({ command, exit, output }).toEqual({ command, exit: 3, output: "" });
    expect(errors).not.toContain(secret);
    expect(errors.split(`ERS-201  ${names}: bob@127.0.0.1:1/shop`)).toHaveLength(2);
  }
  const { exit, output } = await erserver("status");
  expect(exit).toBe(0);
  expect(output).toMatch(/london {2}offline \(source\)[^]*ERS-201 {2}bob@127\.0\.0\.1:1\/shop/);
});

test("pause and resume say what they did; sync says that a target is paused", async () => {
  expect((await erserver("pause")).errors).toMatch(/^ERS-407/m);
  expect((await erserver("sync")).exit).toBe(0);
  expect((await erserver("pause", "--target", "tokyo")).output).toBe("tokyo: paused\n");
  expect((await erserver("pause", "--target", "tokyo")).output).toBe("tokyo: already paused\n");
  const { exit, errors } = await erserver("sync");
  expect(exit).toBe(5);
  expect(errors).toMatch(/^ERS-803 {2}tokyo: [^]*erserver resume --target tokyo/m);
  expect((await erserver("resume", "--target", "tokyo")).output).toBe("tokyo: goes on\n");
  expect((await erserver("resume", "--target", "tokyo")).output).toBe("tokyo: was not paused\n");
  expect((await erserver("sync")).exit).toBe(0);
});

describe("a signal", () => {
  /** Waits until a session of ours waits for another one. */
  const blocked = async (database: FreshDatabase): Promise<void> => {
    const query =
      "select from pg_stat_activity where datname = current_database() and application_name like 'erserver %' and cardinality(pg_blocking_pids(pid)) > 0";
    await until(async () => (await database.query(query)).length > 0, { what: "the command to wait" });
  };
  const interrupted = { exit: 130, signal: null, errors: expect.stringMatching(/^ERS-902 /) };

  test.each(["init", "sync"])(
    "ends %s while the source makes it wait for an open transaction, and the slot is gone; more of them change nothing",
    async (command) => {
      const open = await source.connect();
      await open.query("begin; insert into account values (4, 4)");
      await using running = start(command, "--target", "london");
      await blocked(source);
      running.process.kill("SIGINT");
      await until(() => running.errors.includes("ERS-902"), { what: "the end to be told", interval: 1 });
      for (let again = 0; again < 100 && running.process.exitCode === null; again++) {
        running.process.kill("SIGINT");
        await new Promise(setImmediate);
      }
      expect(await running.finished).toMatchObject(interrupted);
      const backends = "select from pg_stat_activity where application_name like 'erserver london%'";
      await until(async () => (await source.query(backends)).length === 0, { what: "no session to be left" });
      expect(await slots()).toEqual([]);
    },
  );

  test("ends pause and status, which change nothing, and drop when it is done", async () => {
    await erserver("sync", "--target", "london");
    const other = await london.connect();
    await other.query("begin; lock table erserver.pipeline in access exclusive mode");
    for (const command of ["pause", "status"]) {
      await using running = start(command, "--target", "london");
      await blocked(london);
      running.process.kill("SIGTERM");
      expect(await running.finished).toMatchObject({ ...interrupted, output: "" });
      await london.query(
        "select pg_terminate_backend(pid) from pg_stat_activity where cardinality(pg_blocking_pids(pid)) > 0",
      );
    }
    await other.query("rollback");
    expect(await london.query("select desired from erserver.pipeline")).toEqual([{ desired: "running" }]);

    await other.query("begin; select from erserver.progress for update");
    await using dropping = start("drop");
    await blocked(london);
    dropping.process.kill("SIGINT");
    expect(await slots()).toHaveLength(1);
    await other.query("commit");
    expect(await dropping.finished).toMatchObject({
      ...interrupted,
      output: expect.stringMatching(
        /^london: removed replication slot .*\n[^]*schema erserver on the target\n$/,
      ),
    });
    expect(await slots()).toEqual([]);
    expect(await london.query("select from pg_namespace where nspname = 'erserver'")).toEqual([]);
  });
});
