import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { once } from "node:events";
import { connect, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { type Cluster, startCluster } from "../../src/demo/cluster.ts";
import { requireUsableServer } from "../../src/postgres/server-facts.ts";
import { querySession } from "../support/bad-input.ts";
import { BuiltCli } from "../support/built-cli.ts";
import { testMajor } from "../support/clusters.ts";
import { configFile, done, rserv, type Said } from "../support/commands.ts";
import { expectEqualTables } from "../support/compare.ts";
import { until } from "../support/wait.ts";

const T = "create table t (id int primary key, v text)";
const SUPERUSER = "secret-of-postgres";
const PMA = "secret-of-pma";

/** Servers that ask for passwords, and whose WAL is not to be had. */
let master: Cluster;
let slave: Cluster;
let folder: string;
let machines: Server[];
const hba = new Map<Cluster, string>();

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "erserver-access-"));
  const options = { authentication: "scram-sha-256", password: SUPERUSER } as const;
  [master, slave] = await Promise.all([
    startCluster({ ...options, major: testMajor("source"), settings: { wal_level: "replica" } }),
    startCluster({ ...options, major: testMajor("target") }),
  ]);
});

afterAll(async () => {
  await Promise.all([master.dispose(), slave.dispose()]);
  await rm(folder, { recursive: true });
});

beforeEach(async () => {
  machines = [];
  const passfile = path.join(folder, "pgpass");
  await writeFile(passfile, `*:*:*:pma:${PMA}\n`, { mode: 0o600 });
  vi.stubEnv("PGPASSFILE", passfile);
  for (const server of [master, slave]) {
    await querySession(server.url(), `create role pma login password '${PMA}'`);
    for (const name of ["booktown", "other"]) await querySession(server.url(), `create database ${name}`);
    await querySession(server.url("booktown"), T);
    const file = hbaFile(server);
    hba.set(server, await readFile(file, "utf8"));
    await allow(server, "host all postgres 127.0.0.1/32 scram-sha-256", "");
  }
  await querySession(
    master.url("booktown"),
    "grant create on database booktown to pma; grant select, trigger on t to pma; insert into t values (1, 'a')",
  );
  await querySession(
    slave.url("booktown"),
    "grant create on database booktown to pma; grant select, insert, update, delete, truncate on t to pma",
  );
});

afterEach(async () => {
  vi.unstubAllEnvs();
  for (const machine of machines) machine.close();
  for (const server of [master, slave]) {
    await allow(server, hba.get(server) ?? "", "");
    for (const name of ["booktown", "other"])
      await querySession(server.url(), `drop database if exists ${name} with (force)`);
    await querySession(server.url(), "drop role pma");
  }
});

const hbaFile = ({ dataDirectory }: Cluster): string => path.join(dataDirectory, "pg_hba.conf");

/** Makes pg_hba.conf what it was and one line more. */
async function allow(server: Cluster, line: string, before?: string): Promise<void> {
  const file = hbaFile(server);
  const text = `${before ?? (await readFile(file, "utf8"))}${line}\n`;
  await writeFile(file, text);
  const loaded = "select pg_conf_load_time()::text as time";
  const [was] = await querySession<{ time: string }>(server.url(), loaded);
  server.reload();
  await until(
    async () => (await querySession<{ time: string }>(server.url(), loaded))[0]?.time !== was?.time,
    { what: "the file to be read again" },
  );
}

/** A port behind which a connection to the server comes from another address. */
async function from(address: string, server: Cluster): Promise<number> {
  const machine = createServer((client) => {
    const onward = connect({ port: server.port, host: "127.0.0.1", localAddress: address });
    for (const socket of [client, onward]) socket.on("error", () => client.destroy());
    client.pipe(onward).pipe(client);
  });
  machine.listen(0, "127.0.0.1");
  await once(machine, "listening");
  machines.push(machine);
  return (machine.address() as { port: number }).port;
}

const MASTER_MACHINE = "127.0.0.2";
const SLAVE_MACHINE = "127.0.0.3";

test("S12: `check` verifies reachability, versions, settings, rights and tables on both sides, and changes nothing (a server that is too old is not here: its refusal is shown without one)", async () => {
  const url = (server: Cluster): string => `postgres://pma@127.0.0.1:${server.port}/booktown`;
  for (const server of [master, slave]) await allow(server, "host booktown pma 127.0.0.1/32 scram-sha-256");
  const check = async (source: string, target: string, extra = "capture: trigger\n"): Promise<Said> => {
    await using file = await configFile(source, { london: target }, extra);
    return file.run("check");
  };
  const refusals: readonly (readonly [() => Promise<Said>, RegExp])[] = [
    [() => check("postgres://pma@127.0.0.1:1/booktown", url(slave)), /ERS-201 [^]*→ Start the server/],
    [() => check(url(master), "postgres://pma@127.0.0.1:1/booktown"), /ERS-201 [^]*→ Start the server/],
    [
      () => check(url(master), url(slave), "capture: wal\n"),
      /ERS-301 .*wal_level is replica[^]*→ .*ALTER SYSTEM SET wal_level = logical/,
    ],
  ];
  for (const [refused, said] of refusals) {
    const { exit, errors } = await refused();
    expect(exit).toBeGreaterThan(0);
    expect(errors).toMatch(said);
  }
  for (const [server, side, privilege] of [
    [master, "source", "select"],
    [slave, "target", "delete"],
  ] as const) {
    await querySession(server.url("booktown"), `revoke ${privilege} on t from pma`);
    const { exit, errors } = await check(url(master), url(slave));
    expect(exit).toBe(4);
    expect(errors).toMatch(
      new RegExp(
        `^ERS-304 .*lacks privileges on the ${side}, for public\\.t\\n {2}→ .*GRANT ${privilege} ON public\\.t TO "pma";`,
        "i",
      ),
    );
    await querySession(server.url("booktown"), `grant ${privilege} on t to pma`);
  }
  for (const [server, thing, grant, said] of [
    [
      master,
      "table t",
      "trigger",
      /^ERS-304 .*may not make triggers .*public\.t\n {2}→ .*GRANT TRIGGER ON public\.t/,
    ],
    [
      slave,
      "database booktown",
      "create",
      /^ERS-304 .*schema erserver cannot be made.*\n {2}→ .*GRANT CREATE ON DATABASE/,
    ],
  ] as const) {
    await querySession(server.url("booktown"), `revoke ${grant} on ${thing} from pma`);
    expect((await check(url(master), url(slave))).errors).toMatch(said);
    await querySession(server.url("booktown"), `grant ${grant} on ${thing} to pma`);
  }
  await querySession(slave.url("booktown"), "alter table t rename to elsewhere");
  expect((await check(url(master), url(slave))).errors).toMatch(/^ERS-401 .*public\.t\b/);
  await querySession(slave.url("booktown"), "alter table elsewhere rename to t");
  expect(() =>
    requireUsableServer(
      {
        version: 90_624,
        versionText: "9.6.24",
        database: "booktown",
        user: "pma",
        superuser: false,
        inRecovery: false,
      },
      "ny:5432",
      10,
    ),
  ).toThrow(expect.objectContaining({ code: "ERS-305" }) as Error);

  await using file = await configFile(url(master), { london: url(slave) }, "capture: trigger\n");
  expect(await done(file.run("check"))).toContain("london: all is there");
  for (const server of [master, slave]) {
    expect(
      await querySession(
        server.url("booktown"),
        "select nspname from pg_namespace where nspname = 'erserver'",
      ),
    ).toEqual([]);
    expect(await querySession(server.url("booktown"), "select tgname from pg_trigger")).toEqual([]);
  }
});

test("S14: neither setting up nor testing makes a superuser, and a role of its own with few privileges suffices", async () => {
  for (const server of [master, slave]) await allow(server, "host all pma 127.0.0.1/32 scram-sha-256");
  const superusers = async (): Promise<unknown> =>
    Promise.all(
      [master, slave].map((server) =>
        querySession(
          server.url(),
          "select rolname, rolsuper, rolcreaterole, rolreplication from pg_roles order by 1",
        ),
      ),
    );
  const before = await superusers();
  const at = (server: Cluster): string => `postgres://pma@127.0.0.1:${server.port}/booktown`;
  await done(rserv("MasterInit", at(master)));
  await done(rserv("MasterAddTable", at(master), "t"));
  await done(rserv("SlaveInit", at(slave), "--quiet"));
  await done(rserv("SlaveAddTable", at(slave), "t"));
  const watched = querySession(master.url(), "select rolname from pg_roles where rolsuper");
  await done(rserv("Replicate", at(master), at(slave), "--quiet"));
  expect(await watched).toEqual([{ rolname: "postgres" }]);
  await expectEqualTables(master.url("booktown"), slave.url("booktown"), ["public.t"]);
  expect(await superusers()).toEqual(before);
  const { scripts = {} } = JSON.parse(
    await readFile(path.join(import.meta.dirname, "../../package.json"), "utf8"),
  ) as { scripts?: Record<string, string> };
  expect(Object.keys(scripts).filter((name) => /install|prepare/.test(name))).toEqual([]);
});

test("S23: the refusal prints the exact pg_hba.conf line, for one database, one role and one address; with it the replicator connects, and others do not", async () => {
  const port = await from(MASTER_MACHINE, slave);
  const place = ["--host=127.0.0.1", `--port=${port}`, "--user=pma"];
  const refused = await rserv("SlaveInit", "booktown", ...place);
  expect(refused).toMatchObject({ exit: 3, output: "" });
  const line =
    /^ {2}→ Add a line to the server's pg_hba\.conf and reload it: (.*)$/m.exec(refused.errors)?.[1] ?? "";
  expect(line).toBe(`host booktown pma ${MASTER_MACHINE}/32 scram-sha-256`);
  await allow(slave, line);
  expect((await rserv("SlaveInit", "booktown", ...place)).output).toContain("booktown is a slave");

  expect((await rserv("SlaveInit", "other", ...place)).errors).toMatch(/^ERS-205 /);
  const elsewhere = await from(SLAVE_MACHINE, slave);
  expect(
    (await rserv("SlaveInit", "booktown", "--host=127.0.0.1", `--port=${elsewhere}`, "--user=pma")).errors,
  ).toMatch(/^ERS-205 /);
  expect(
    (await rserv("SlaveInit", "booktown", "--host=127.0.0.1", `--port=${port}`, "--user=postgres")).errors,
  ).toMatch(/^ERS-205 /);
  vi.stubEnv("PGPASSFILE", path.join(folder, "none"));
  expect((await rserv("SlaveInit", "booktown", ...place)).errors).toMatch(/^ERS-202 /);
});

test("S24: with the way from the master's machine to the slave open, and none back, everything works", async () => {
  for (const server of [master, slave])
    await allow(server, `host booktown pma ${MASTER_MACHINE}/32 scram-sha-256`);
  const back = await from(SLAVE_MACHINE, master);
  expect((await rserv("MasterInit", `postgres://pma@127.0.0.1:${back}/booktown`)).errors).toMatch(
    /^ERS-205 /,
  );
  const [here, there] = [await from(MASTER_MACHINE, master), await from(MASTER_MACHINE, slave)];
  const urls = [here, there].map((port) => `postgres://pma@127.0.0.1:${port}/booktown`);
  const [masterUrl = "", slaveUrl = ""] = urls;
  await done(rserv("MasterInit", masterUrl));
  await done(rserv("MasterAddTable", masterUrl, "t"));
  await done(rserv("SlaveInit", slaveUrl, "--quiet"));
  await done(rserv("SlaveAddTable", slaveUrl, "t"));
  await done(rserv("Replicate", masterUrl, slaveUrl, "--quiet"));
  await querySession(master.url("booktown"), "update t set v = 'b'; insert into t values (2, 'c')");
  await done(rserv("Replicate", masterUrl, slaveUrl, "--quiet"));
  await expectEqualTables(master.url("booktown"), slave.url("booktown"), ["public.t"]);
  expect(await readFile(path.join(import.meta.dirname, "../../docs/service.md"), "utf8")).toMatch(
    /no server connects\s+to it, nor to another server/,
  );
});

test("T16: secrets are never printed, logged, shown in a session or taken from the command line", async () => {
  for (const server of [master, slave]) await allow(server, "host booktown pma 127.0.0.1/32 scram-sha-256");
  await using cli = await BuiltCli.build();
  const at = (server: Cluster): string => `postgres://pma@127.0.0.1:${server.port}/booktown`;
  const withSecret = (server: Cluster, secret = PMA): string => at(server).replace("pma@", `pma:${secret}@`);
  await using file = await configFile(
    withSecret(master),
    { london: withSecret(slave) },
    "capture: trigger\n",
  );
  await writeFile(file.path, (await readFile(file.path, "utf8")).replace("level: error", "level: debug"));
  await using wrong = await configFile(
    withSecret(master, "wrong-secret"),
    { london: withSecret(slave) },
    "capture: trigger\n",
  );
  const calls: readonly (readonly string[])[] = [
    ...["check", "init", "sync", "status", "verify"].map((command) => [command, "-c", file.path]),
    ["sync", "-c", wrong.path],
    ["rserv", "MasterInit", "--debug", at(master)],
    ["rserv", "Replicate", "--debug", at(master), at(slave)],
    ["rserv", "MasterInit", withSecret(master)],
    ["rserv", "MasterInit", `host=127.0.0.1 port=${master.port} user=pma dbname=booktown password=${PMA}`],
    ["rserv", "MasterInit", `--password=${PMA}`, at(master)],
    ["rserv", "Replicate", `--masterpassword=${PMA}`, at(master), at(slave)],
  ];
  const exits: (number | null)[] = [];
  for (const call of calls) {
    const { exit, output, errors } = await cli.run(...call);
    exits.push(exit);
    for (const secret of [PMA, SUPERUSER, "wrong-secret"])
      expect(`${output}${errors}`, call.join(" ")).not.toContain(secret);
  }
  expect(exits).toEqual([0, 0, 0, 0, 0, 3, 0, expect.any(Number), 2, 2, 2, 2]);

  await using run = cli.start("run", "-c", file.path);
  await run.prints(/streaming/);
  for (const server of [master, slave]) {
    const sessions = await querySession(server.url(), "select * from pg_stat_activity");
    expect(JSON.stringify(sessions)).not.toContain(PMA);
    expect(server.log()).not.toContain(SUPERUSER);
    expect(
      await querySession(
        server.url("booktown"),
        "select string_agg(e::text, '') as all from erserver.migration e",
      ),
    ).toHaveLength(1);
  }
  const stored = await querySession(slave.url("booktown"), "select p::text from erserver.pipeline p");
  expect(JSON.stringify(stored)).not.toMatch(/secret/);
  run.process.kill("SIGTERM");
  const { errors, output } = await run.finished;
  expect(`${output}${errors}`).not.toContain(PMA);
});
