import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openSession, sharedCluster, testMajor } from "../../test/support/clusters.ts";
import { tlsFile, turnOnTls } from "../../test/support/tls-server.ts";
import { until } from "../../test/support/wait.ts";
import { parseConninfo } from "../config/conninfo.ts";
import { systemEnvironment } from "../config/environment.ts";
import { type Cluster, startCluster } from "../demo/cluster.ts";
import { connectControl, connectWire } from "./connect.ts";

const OPTIONS = { applicationName: "erserver tls test", timeoutMs: 30_000 };
const CA = `sslrootcert=${tlsFile("ca.crt")}`;
const OTHER_CA = `sslrootcert=${tlsFile("other-ca.crt")}`;
/** Where the server is, under the name that its certificate has. */
const BY_NAME = "host=db.erserver.test hostaddr=127.0.0.1";
const BY_OTHER_NAME = "host=elsewhere.erserver.test hostaddr=127.0.0.1";
const CERTIFIED = `user=certified sslmode=require sslcert=${tlsFile("client.crt")} sslkey=${tlsFile("client.key")}`;

let cluster: Cluster;
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "erserver-tls-"));
  cluster = await startCluster({
    major: testMajor("source"),
    settings: { password_encryption: "scram-sha-256" },
  });
  const session = await openSession(cluster.url());
  try {
    await session.query("create role certified login");
    await session.query("create role trusted login");
    await session.query("create role unencrypted login password 'secret'");
    await session.query("create role replicator superuser login password 'secret'");
  } finally {
    await session.end();
  }
  await turnOnTls(cluster, [
    "host all postgres 127.0.0.1/32 trust",
    "hostnossl all unencrypted 127.0.0.1/32 scram-sha-256",
    "hostssl all certified 127.0.0.1/32 cert",
    "hostssl all trusted 127.0.0.1/32 trust",
    "hostssl all,replication replicator 127.0.0.1/32 scram-sha-256",
  ]);
});

afterAll(async () => {
  await cluster.dispose();
  await rm(folder, { recursive: true });
});

/** Only what is given counts; nothing of the machine's variables and home folder does. */
const conninfoOf = (text: string, env: Record<string, string> = {}) =>
  parseConninfo(
    `host=127.0.0.1 port=${cluster.port} user=replicator password=secret dbname=postgres ${text}`,
    {
      ...systemEnvironment(),
      env,
      home: folder,
    },
  );

/** Version of TLS that a session has, null without. */
async function tlsOf(text: string, env?: Record<string, string>): Promise<string | null | undefined> {
  await using session = await connectControl(conninfoOf(text, env), OPTIONS);
  const [row] = await session.query(
    "select version from pg_catalog.pg_stat_ssl where pid = pg_catalog.pg_backend_pid()",
  );
  return row?.version;
}

describe("every sslmode connects as in libpq", () => {
  test.each([
    ["allow", "sslmode=allow"],
    ["prefer", "sslmode=prefer"],
    ["require", "sslmode=require"],
    ["require with the CA", `sslmode=require ${CA}`],
    ["verify-ca", `sslmode=verify-ca ${CA}`],
    ["verify-ca under another name", `sslmode=verify-ca ${CA} ${BY_OTHER_NAME}`],
    ["verify-full by address", `sslmode=verify-full ${CA}`],
    ["verify-full by name", `sslmode=verify-full ${CA} ${BY_NAME}`],
    ["a list of revoked certificates", `sslmode=verify-ca ${CA} sslcrl=${tlsFile("none-revoked.crl")}`],
  ])("%s: by TLS", async (_, text) => expect(await tlsOf(text)).toMatch(/^TLSv1/));

  test.each([
    ["disable", "sslmode=disable"],
    ["allow", "sslmode=allow"],
    ["prefer, which the server's pg_hba.conf refuses", "sslmode=prefer"],
  ])("%s: without TLS", async (_, text) => expect(await tlsOf(`${text} user=unencrypted`)).toBeNull());

  test("prefer goes on without TLS where TLS fails, the stronger ones do not", async () => {
    const tooOld = "user=postgres ssl_min_protocol_version=TLSv1 ssl_max_protocol_version=TLSv1.1";
    expect(await tlsOf("user=postgres sslmode=prefer")).toMatch(/^TLSv1/);
    expect(await tlsOf(`${tooOld} sslmode=prefer`)).toBeNull();
    await expect(tlsOf(`${tooOld} sslmode=require`)).rejects.toMatchObject({ code: "ERS-207" });
  });

  test.each([
    ["disable where only hostssl lets us in", "sslmode=disable", "ERS-205", /pg_hba/],
    ["require where only hostnossl does", "sslmode=require user=unencrypted", "ERS-205", /pg_hba/],
    ["require with another CA", `sslmode=require ${OTHER_CA}`, "ERS-207", /sslrootcert/],
    ["verify-ca with another CA", `sslmode=verify-ca ${OTHER_CA}`, "ERS-207", /sslrootcert/],
    ["verify-full with another CA", `sslmode=verify-full ${OTHER_CA} ${BY_NAME}`, "ERS-207", /sslrootcert/],
    ["verify-full with the public CAs", "sslrootcert=system", "ERS-207", /sslrootcert/],
    [
      "verify-full under another name",
      `sslmode=verify-full ${CA} ${BY_OTHER_NAME}`,
      "ERS-207",
      /name that the certificate has/,
    ],
    [
      "verify-full under another address",
      `sslmode=verify-full ${CA} host=10.1.2.3 hostaddr=127.0.0.1`,
      "ERS-207",
      /name that the certificate has/,
    ],
    [
      "a certificate that is revoked",
      `sslmode=verify-full ${CA} sslcrl=${tlsFile("server-revoked.crl")}`,
      "ERS-207",
      /sslcrl/,
    ],
  ])("%s: refused, with a remedy", async (_, text, code, remedy) => {
    await expect(tlsOf(text)).rejects.toMatchObject({ code, remedy: expect.stringMatching(remedy) });
  });

  test("a server without TLS", async () => {
    const port = `port=${sharedCluster("source").port} user=postgres`;
    for (const mode of ["disable", "allow", "prefer"])
      expect(await tlsOf(`${port} sslmode=${mode}`)).toBeNull();
    for (const mode of ["require", `verify-full ${CA}`]) {
      await expect(tlsOf(`${port} sslmode=${mode}`)).rejects.toMatchObject({
        code: "ERS-207",
        remedy: expect.stringContaining("Turn ssl on"),
      });
    }
  });
});

test("the versions of TLS are bounded", async () => {
  expect(await tlsOf("sslmode=require ssl_max_protocol_version=TLSv1.2")).toBe("TLSv1.2");
  expect(await tlsOf("sslmode=require ssl_min_protocol_version=TLSv1.3")).toBe("TLSv1.3");
});

test("sslnegotiation=direct begins with TLS, which servers before 17 do not take", async () => {
  const text = `sslmode=verify-full ${CA} ${BY_NAME} sslnegotiation=direct`;
  if (cluster.major >= 17) expect(await tlsOf(text)).toMatch(/^TLSv1/);
  else
    await expect(tlsOf(text)).rejects.toMatchObject({
      code: "ERS-207",
      remedy: expect.stringContaining("17 or newer"),
    });
});

test("PGSSLNEGOTIATION of the environment is the configuration's matter alone", async () => {
  process.env["PGSSLNEGOTIATION"] = "direct";
  try {
    expect(await tlsOf("sslmode=prefer")).toMatch(/^TLSv1/);
  } finally {
    delete process.env["PGSSLNEGOTIATION"];
  }
});

describe("channel binding", () => {
  test.each(["disable", "prefer"])("%s works with scram-sha-256", async (mode) => {
    expect(await tlsOf(`sslmode=require channel_binding=${mode}`)).toMatch(/^TLSv1/);
  });

  test("require works with scram-sha-256, from 11 on", async () => {
    const version = tlsOf("sslmode=require channel_binding=require");
    if (cluster.major >= 11) expect(await version).toMatch(/^TLSv1/);
    else
      await expect(version).rejects.toMatchObject({
        code: "ERS-207",
        message: expect.stringContaining("does not offer it"),
      });
  });

  test.each([
    ["without TLS", "sslmode=disable user=unencrypted", /does not offer it/],
    ["where anybody is let in", "sslmode=require user=trusted", /lets us in without it/],
  ])("require %s: refused, with a remedy", async (_, text, message) => {
    await expect(tlsOf(`${text} channel_binding=require`)).rejects.toMatchObject({
      code: "ERS-207",
      message: expect.stringMatching(message),
      remedy: expect.stringContaining("channel_binding=require"),
    });
  });
});

describe("a client certificate", () => {
  test("with a key that a password opens", async () => {
    expect(await tlsOf(`${CERTIFIED} sslpassword=passphrase`)).toMatch(/^TLSv1/);
  });

  test("that is missing is refused by the server", async () => {
    await expect(tlsOf("user=certified sslmode=require")).rejects.toMatchObject({
      code: "ERS-202",
      message: expect.stringContaining("client certificate"),
    });
  });

  test.each([
    ["a wrong password of the key", `${CERTIFIED} sslpassword=wrong`, "sslkey"],
    [
      "the key of another",
      `${CERTIFIED.replace("client.key", "server.key")} sslpassword=passphrase`,
      "sslkey",
    ],
    ["text instead of a certificate", `sslmode=require sslcert=${tlsFile("make.sh")}`, "sslcert"],
    ["text instead of a CA", `sslmode=verify-ca sslrootcert=${tlsFile("make.sh")}`, "sslrootcert"],
    ["text instead of a list", `sslmode=verify-ca ${CA} sslcrl=${tlsFile("make.sh")}`, "sslcrl"],
  ])("%s: the keyword and the file are named", async (_, text, keyword) => {
    await expect(tlsOf(text)).rejects.toMatchObject({
      code: "ERS-207",
      message: expect.stringMatching(`${keyword} "/[^"]+" cannot be used`),
      remedy: expect.stringContaining(keyword),
    });
  });

  test("that vanished since the configuration was read is missed, and tried again", async () => {
    const file = path.join(folder, "client.crt");
    await writeFile(file, "");
    const conninfo = conninfoOf(`sslmode=require sslcert=${file}`);
    await rm(file);
    await expect(connectControl(conninfo, OPTIONS)).rejects.toMatchObject({
      code: "ERS-207",
      message: expect.stringMatching(/sslcert ".*client\.crt" cannot be used: ENOENT/),
      entry: { retry: "reconnect" },
    });
  });
});

test("hostaddr is where to connect to, host is the name that .pgpass has", async () => {
  const file = path.join(folder, "passwords");
  await writeFile(file, "127.0.0.1:*:*:*:wrong\ndb.erserver.test:*:*:replicator:secret\n");
  await chmod(file, 0o600);
  const text = `${BY_NAME} password='' sslmode=verify-full ${CA}`;
  expect(await tlsOf(text, { PGPASSFILE: file })).toMatch(/^TLSv1/);
});

describe("a TLS socket that was handed over", () => {
  const conninfo = () => {
    const binding = cluster.major >= 11 ? "require" : "prefer";
    return conninfoOf(`${BY_NAME} sslmode=verify-full ${CA} channel_binding=${binding}`);
  };
  const sessions = async (): Promise<number> => {
    const session = await openSession(cluster.url());
    try {
      const { rowCount } = await session.query("select from pg_stat_activity where application_name = $1", [
        OPTIONS.applicationName,
      ]);
      return rowCount ?? 0;
    } finally {
      await session.end();
    }
  };

  test("carries more than any buffer holds, both ways", async () => {
    const connection = await connectWire(conninfo(), OPTIONS);
    await connection.query("create temp table large (t text)");
    const copy = await connection.copyIn("copy large from stdin");
    const line = Buffer.from(`${"x".repeat(99_999)}\n`);
    for (let i = 0; i < 200; i++) await copy.write(line);
    expect(await copy.done()).toBe(200);
    let bytes = 0;
    for await (const run of connection.copyOut("copy large to stdout")) bytes += run.length;
    expect(bytes).toBe(200 * (100_000 + 5));
    await connection.end();
  });

  test("ends, is destroyed, and notices that the server has gone", async () => {
    const ended = await connectWire(conninfo(), OPTIONS);
    await ended.end();
    const destroyed = await connectWire(conninfo(), OPTIONS);
    destroyed.destroy();
    await until(async () => (await sessions()) === 0, { what: "the server to miss both" });

    const broken = await connectWire(conninfo(), OPTIONS);
    const pending = broken.query("select pg_catalog.pg_sleep(60)");
    await cluster.restart("immediate");
    await expect(pending).rejects.toMatchObject({ code: "ERS-204" });
    expect(await broken.closed).toMatchObject({ code: "ERS-204" });
  });
});
