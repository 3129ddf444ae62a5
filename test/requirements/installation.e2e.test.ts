import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { serverUser } from "../../src/demo/binaries.ts";
import { startCluster } from "../../src/demo/cluster.ts";
import type { Finished } from "../support/built-cli.ts";
import { querySession } from "../support/bad-input.ts";
import { freshDatabase, sharedCluster, testMajor } from "../support/clusters.ts";
import { configFile, done, rserv } from "../support/commands.ts";
import { expectEqualTables } from "../support/compare.ts";
import { InstalledPackage } from "../support/installed-package.ts";
import { turnOnTls } from "../support/tls-server.ts";
import { until } from "../support/wait.ts";

const root = path.join(import.meta.dirname, "../..");
const T = "create table t (id int primary key, v text)";

let installed: InstalledPackage;
/** Nothing but where programs are. */
const bare = { PATH: process.env["PATH"] };

beforeAll(async () => {
  installed = await InstalledPackage.install();
});

afterAll(async () => {
  await installed[Symbol.asyncDispose]();
});

/** A folder that is removed at the end of the scope, which everybody may use. */
async function emptyFolder(): Promise<AsyncDisposable & { path: string }> {
  const folder = await mkdtemp(path.join(tmpdir(), "erserver-empty-"));
  await chmod(folder, 0o777);
  return { path: folder, [Symbol.asyncDispose]: () => rm(folder, { recursive: true }) };
}

function expectDone(finished: Finished): string {
  expect(finished).toMatchObject({ exit: 0, errors: "" });
  return finished.output;
}

test("S11: two copies on different machines work together, and one that is older than what the other has made says so", async () => {
  await using master = await freshDatabase(sharedCluster("source"));
  await using slave = await freshDatabase(sharedCluster("target"));
  for (const database of [master, slave]) await database.query(T);
  await master.query("insert into t values (1, 'a')");
  // The master's copy is this one, the slave's the installed one, and a third replicates.
  await done(rserv("MasterInit", master.url));
  await done(rserv("MasterAddTable", master.url, "t"));
  expectDone(await installed.run("SlaveInit", [slave.url]));
  expectDone(await installed.run("SlaveAddTable", [slave.url, "t"]));
  // Over several lines, as the chapter prints it.
  const line = `'${installed.command("Replicate")}' --user=postgres --host=local \\\n  --masterhost=127.0.0.1 --masterport=${master.server.port} \\\n  --slavehost=127.0.0.1 --slaveport=${slave.server.port} \\\n  ${master.name} ${slave.name}`;
  expect(expectDone(await installed.shell(line))).toMatch(/^Replicate: /);
  await expectEqualTables(master.url, slave.url);

  await using folder = await emptyFolder();
  const newer = path.join(folder.path, "node_modules/erserver");
  await cp(installed.folder, newer, { recursive: true });
  await symlink(path.join(installed.folder, ".."), path.join(newer, "node_modules"));
  await writeFile(
    path.join(newer, "sql/target/9999_of_a_newer_version.sql"),
    "create table erserver.newer (id int);",
  );
  expectDone(await installed.shell(`node '${newer}/dist/cli/main.js' rserv SlaveInit '${slave.url}'`));
  await master.query("insert into t values (2, 'b')");
  const refused = await rserv("Replicate", master.url, slave.url);
  expect(refused).toMatchObject({ exit: 4, output: "" });
  expect(refused.errors).toMatch(
    /^ERS-408 .*was made by a newer version \(it has 9999_of_a_newer_version\.sql\)\n {2}→ Upgrade erserver on this machine/,
  );
  expect(await slave.query("select id from t")).toEqual([{ id: 1 }]);
});

test("S13: there is no client library to build and no environment variable to set", async () => {
  const names = await readdir(path.join(installed.folder, ".."));
  expect(names).toContain("pg");
  // Installed with --ignore-scripts: nothing was compiled, and nothing is a compiled library.
  const everything = await readdir(path.join(installed.folder, "../.."), { recursive: true });
  expect(everything.filter((name) => /\.(?:node|so|dylib|a)$/.test(name))).toEqual([]);
  await using source = await freshDatabase(sharedCluster("source"));
  await using target = await freshDatabase(sharedCluster("target"));
  for (const database of [source, target]) await database.query(T);
  await source.query("insert into t values (1, 'a')");
  await using file = await configFile(source.url, { [target.name]: target.url });
  expectDone(await installed.run("erserver", ["sync", "-c", file.path], { env: bare }));
  await expectEqualTables(source.url, target.url);
});

test("S15: one step installs it from any directory, with no server source tree, and every command runs from there (shown on Linux; BSD and macOS are not here)", async () => {
  await using folder = await emptyFolder();
  const { version } = JSON.parse(await readFile(path.join(root, "package.json"), "utf8")) as {
    version: string;
  };
  expect(expectDone(await installed.run("erserver", ["--version"], { cwd: folder.path }))).toBe(
    `${version}\n`,
  );
  const commands = await readdir(path.join(installed.folder, "rserv"));
  expect(commands).toContain("MasterInit");
  const helps = await Promise.all(
    commands.map((name) => installed.run(name, ["--help"], { cwd: folder.path })),
  );
  for (const [index, help] of helps.entries())
    expect(expectDone(help)).toMatch(new RegExp(`^Usage: .*${commands[index]}`));
  // By a link in a folder of the path, too.
  await symlink(installed.command("GetSyncID"), path.join(folder.path, "GetSyncID"));
  expectDone(
    await installed.shell("GetSyncID --help", { env: { PATH: `${folder.path}:${process.env["PATH"]}` } }),
  );
  expect(await readdir(folder.path)).toEqual(["GetSyncID"]);
});

test("S18: rows go directly from server to server, encrypted where it is asked for, and nothing is left on disk", async () => {
  await using source = await startCluster({ major: testMajor("source") });
  await turnOnTls(source, [
    "hostssl all all 127.0.0.1/32 trust",
    "host postgres postgres 127.0.0.1/32 trust",
  ]);
  await using target = await freshDatabase(sharedCluster("target"));
  const mark = "this goes over the wire";
  await querySession(source.url(), `${T}; insert into t values (1, '${mark}')`);
  await target.query(T);
  const passed: Buffer[] = [];
  const wire = createServer((client) => {
    const server = connect(source.port, "127.0.0.1");
    server.on("data", (data) => passed.push(data));
    for (const socket of [client, server]) socket.on("error", () => undefined);
    client.pipe(server).pipe(client);
  });
  wire.listen(0, "127.0.0.1");
  await once(wire, "listening");
  const { port } = wire.address() as { port: number };
  try {
    await using folder = await emptyFolder();
    for (const [sslmode, visible] of [
      ["require", false],
      ["disable", true],
    ] as const) {
      passed.length = 0;
      await querySession(target.url, "truncate t; drop schema if exists erserver cascade");
      await using file = await configFile(
        `postgres://postgres@127.0.0.1:${port}/postgres?sslmode=${sslmode}`,
        { [`${target.name}_${sslmode}`]: target.url },
        "capture: trigger\n",
      );
      const { path: home } = folder;
      expectDone(
        await installed.run("erserver", ["sync", "-c", file.path], {
          cwd: home,
          env: { ...bare, HOME: home, TMPDIR: home },
        }),
      );
      await expectEqualTables(source.url(), target.url);
      expect(Buffer.concat(passed).includes(mark)).toBe(visible);
      expect(await readdir(home)).toEqual([]);
    }
  } finally {
    wire.close();
  }
});

test("S42: as the service of docs/service.md it replicates by itself and continuously from boot on, with its lag bound stated; one shot remains (the boot itself is not shown)", async () => {
  const page = await readFile(path.join(root, "docs/service.md"), "utf8");
  expect(page).toContain("WantedBy=multi-user.target");
  const [program = "", ...args] = /^ExecStart=(.*)$/m.exec(page)?.[1]?.split(" ") ?? [];
  expect(path.basename(program)).toBe("erserver");
  await using source = await freshDatabase(sharedCluster("source"));
  await using target = await freshDatabase(sharedCluster("target"));
  for (const database of [source, target]) await database.query(T);
  await source.query("insert into t values (1, 'a')");
  await using file = await configFile(source.url, { [target.name]: target.url });
  expect(args.at(-1)).toMatch(/\.yaml$/);
  const service = spawn(installed.command("erserver"), [...args.slice(0, -1), file.path], {
    env: bare,
    stdio: "ignore",
  });
  const ended = once(service, "exit");
  try {
    for (let id = 2; id < 5; id++) {
      await source.query(`insert into t values (${id}, 'b')`);
      await until(async () => (await target.query(`select from t where id = ${id}`)).length, {
        what: "the row to arrive by itself",
      });
    }
  } finally {
    service.kill("SIGTERM");
  }
  expect(await ended).toEqual([0, null]);
  await source.query("insert into t values (9, 'c')");
  expectDone(await installed.run("erserver", ["sync", "-c", file.path]));
  await expectEqualTables(source.url, target.url);
  expect(await done(rserv("Replicate", "--help"))).toMatch(
    /--continuous +go on until stopped, at most \d+ ms behind/,
  );
});

test("S47: no step needs root: an ordinary user of the system sets up, replicates and verifies", async () => {
  // Who is not root runs this test as the ordinary user that is meant.
  const user = serverUser();
  await using folder = await emptyFolder();
  const { path: home } = folder;
  await mkdir(path.join(home, "made"), { mode: 0o777 });
  await using source = await freshDatabase(sharedCluster("source"));
  await using target = await freshDatabase(sharedCluster("target"));
  for (const database of [source, target]) await database.query(T);
  await source.query("insert into t values (1, 'a')");
  const config = path.join(home, "erserver.yaml");
  await writeFile(
    config,
    `source: ${source.url}\nlog: { level: error }\ntargets:\n  ${target.name}: ${target.url}\n`,
  );
  const as = { cwd: home, env: { ...bare, HOME: home }, user };
  expect(expectDone(await installed.shell("id -u", as))).not.toBe("0\n");
  for (const command of ["check", "init", "sync", "status", "verify", "drop"])
    expectDone(await installed.run("erserver", [command, "-c", config], as));
  expectDone(await installed.run("MasterInit", [source.url], as));
  expectDone(await installed.run("MasterDrop", [source.url], as));
  await expectEqualTables(source.url, target.url);
});
