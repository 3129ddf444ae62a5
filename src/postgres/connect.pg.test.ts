import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { freshDatabase, openSession, sharedCluster, testMajor } from "../../test/support/clusters.ts";
import { until } from "../../test/support/wait.ts";
import { type Conninfo, parseConninfo } from "../config/conninfo.ts";
import { systemEnvironment } from "../config/environment.ts";
import { type Cluster, startCluster } from "../demo/cluster.ts";
import { connectControl, connectWire } from "./connect.ts";

const OPTIONS = { applicationName: "erserver connect test", timeoutMs: 30_000 };

/** What libpq would make of it with these variables and this home folder. */
function conninfoOf(text: string, { env = {}, home = "/nowhere" } = {}): Conninfo {
  return parseConninfo(text, { ...systemEnvironment(), env, home });
}

describe("where the password comes from", () => {
  let cluster: Cluster;
  let home: string;

  beforeAll(async () => {
    home = await mkdtemp(path.join(tmpdir(), "erserver-home-"));
    cluster = await startCluster({
      major: testMajor("source"),
      authentication: "scram-sha-256",
      password: "se:cret",
      settings: { password_encryption: "scram-sha-256" },
    });
  });

  afterAll(async () => {
    await cluster.dispose();
    await rm(home, { recursive: true });
  });

  const file = async (name: string, text: string, mode = 0o600): Promise<string> => {
    const at = path.join(home, name);
    await writeFile(at, text);
    await chmod(at, mode);
    return at;
  };
  const whoAmI = async (conninfo: Conninfo): Promise<string | null | undefined> => {
    await using session = await connectControl(conninfo, OPTIONS);
    return (await session.query("select session_user::text as me"))[0]?.me;
  };
  const url = (): string => `postgres://postgres@127.0.0.1:${cluster.port}/postgres`;
  const line = (password: string): string => `127.0.0.1:${cluster.port}:*:postgres:${password}\n`;

  test("PGPASSFILE", async () => {
    const env = { PGPASSFILE: await file("passwords", `other:*:*:*:x\n${line("se\\:cret")}`) };
    expect(await whoAmI(conninfoOf(url(), { env }))).toBe("postgres");
  });

  test(".pgpass of the home folder", async () => {
    await file(".pgpass", line("se\\:cret"));
    expect(await whoAmI(conninfoOf(url(), { home }))).toBe("postgres");
  });

  test("a service file, which names the server, too", async () => {
    const text = `[ny]\nhost=127.0.0.1\nport=${cluster.port}\nuser=postgres\ndbname=postgres\npassword=se:cret\n`;
    const env = { PGSERVICEFILE: await file("services", text) };
    expect(await whoAmI(conninfoOf("service=ny", { env }))).toBe("postgres");
  });

  test("none is told from a wrong one", async () => {
    await expect(whoAmI(conninfoOf(url()))).rejects.toMatchObject({
      code: "ERS-202",
      message: expect.stringContaining("there is none for it"),
    });
    const env = { PGPASSFILE: await file("wrong", line("wrong")) };
    await expect(whoAmI(conninfoOf(url(), { env }))).rejects.toMatchObject({
      code: "ERS-202",
      message: expect.stringContaining("password authentication failed"),
    });
  });

  test("a password file that others may read is said to be the reason", async () => {
    const at = await file("readable", line("se\\:cret"), 0o644);
    await expect(whoAmI(conninfoOf(url(), { env: { PGPASSFILE: at } }))).rejects.toMatchObject({
      code: "ERS-202",
      message: expect.stringMatching(`none for it; .*others may read it; run: chmod 0600 ${at}`),
    });
    // It is no reason where no password is needed.
    const trusting = sharedCluster("source").url();
    expect(await whoAmI(conninfoOf(trusting, { env: { PGPASSFILE: at } }))).toBe("postgres");
  });
});

describe("a connection that fails is closed", () => {
  const sessionsOf = async (user: string): Promise<number> => {
    const observer = await openSession(sharedCluster("source").url());
    try {
      const answer = await observer.query("select from pg_stat_activity where usename = $1", [user]);
      return answer.rowCount ?? 0;
    } finally {
      await observer.end();
    }
  };

  test("where it may not make its settings", async () => {
    await using database = await freshDatabase(sharedCluster("source"));
    const role = `${database.name}_limited`;
    await database.query("revoke execute on function pg_catalog.set_config from public");
    await database.query(`create role ${role} login`);
    try {
      const conninfo = conninfoOf(sharedCluster("source").url(database.name, role));
      await expect(connectWire(conninfo, OPTIONS)).rejects.toThrow(/permission denied/);
      await until(async () => (await sessionsOf(role)) === 0, {
        what: "the session to be closed",
        timeout: 5_000,
      });
    } finally {
      await database.query(`drop role ${role}`);
    }
  });
});
