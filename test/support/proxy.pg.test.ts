import { type Client, escapeLiteral } from "pg";
import { expect, test } from "vitest";
import { type FreshDatabase, freshDatabase, openSession, sharedCluster } from "./clusters.ts";
import { type Proxy, commandTag, startProxy } from "./proxy.ts";
import { until } from "./wait.ts";

interface Setting extends AsyncDisposable {
  readonly proxy: Proxy;
  readonly database: FreshDatabase;
  /** A session through the proxy. */
  session(): Promise<Client>;
}

async function proxied(): Promise<Setting> {
  const server = sharedCluster("target");
  const database = await freshDatabase(server);
  const proxy = await startProxy({ target: { port: server.port } });
  await database.query("CREATE TABLE t (id int)");
  return {
    proxy,
    database,
    session: () => openSession(proxy.url(database.url)),
    [Symbol.asyncDispose]: async () => {
      proxy[Symbol.dispose]();
      await database[Symbol.asyncDispose]();
    },
  };
}

const count = async (database: FreshDatabase): Promise<number> =>
  Number((await database.query("SELECT count(*) AS n FROM t"))[0]?.["n"]);

const sessionsOf = async (database: FreshDatabase): Promise<number> =>
  (
    await database.query(
      `SELECT 1 FROM pg_stat_activity WHERE datname = ${escapeLiteral(database.name)} AND pid <> pg_backend_pid()`,
    )
  ).length;

test("it is transparent: large answers and several sessions", async () => {
  await using setting = await proxied();
  const [a, b] = await Promise.all([setting.session(), setting.session()]);
  const sql = "SELECT g, repeat('x', 1000) AS v FROM generate_series(1, 20000) g";
  const answers = await Promise.all([a.query(sql), b.query(sql)]);
  for (const { rows } of answers) expect(rows.at(-1)).toEqual({ g: 20000, v: "x".repeat(1000) });
  expect(setting.proxy.connections).toBe(2);
  await Promise.all([a.end(), b.end()]);
  await until(() => setting.proxy.connections === 0, { what: "both to be closed" });
});

test("the acknowledgement of a COMMIT is lost: the client sees a broken connection, the rows are there", async () => {
  await using setting = await proxied();
  const client = await setting.session();
  const cut = setting.proxy.next({
    from: "server",
    type: "C",
    match: (frame) => commandTag(frame) === "COMMIT",
    action: "cut-before",
  });
  await client.query("BEGIN");
  await client.query("INSERT INTO t VALUES (1)");
  await expect(client.query("COMMIT")).rejects.toThrow(/terminated/);
  await cut;
  expect(await count(setting.database)).toBe(1);
});

test("a COMMIT that does not arrive leaves nothing", async () => {
  await using setting = await proxied();
  const client = await setting.session();
  const cut = setting.proxy.next({
    from: "client",
    type: "Q",
    match: (frame) => frame.includes("COMMIT"),
    action: "cut-inside",
  });
  await client.query("BEGIN");
  await client.query("INSERT INTO t VALUES (1)");
  await expect(client.query("COMMIT")).rejects.toThrow(/terminated/);
  await cut;
  await until(async () => (await sessionsOf(setting.database)) === 0, { what: "the server to notice" });
  expect(await count(setting.database)).toBe(0);
});

test("a dropped message never arrives, and what follows does", async () => {
  await using setting = await proxied();
  const client = await setting.session();
  const dropped = setting.proxy.next({ from: "client", type: "Q", action: "drop" });
  const lost = client.query("INSERT INTO t VALUES (1)");
  await dropped;
  setting.proxy.cut();
  await expect(lost).rejects.toThrow(/ECONNRESET|terminated/);
  expect(await count(setting.database)).toBe(0);
});

test("a cut after a number of bytes ends an answer in the middle", async () => {
  await using setting = await proxied();
  const client = await setting.session();
  setting.proxy.cutAfter(100_000, "server");
  await expect(client.query("SELECT repeat('x', 1000) FROM generate_series(1, 1000)")).rejects.toThrow(
    /terminated/,
  );
  expect(setting.proxy.connections).toBe(0);
});

test("a stalled answer waits, and arrives after resume", async () => {
  await using setting = await proxied();
  const client = await setting.session();
  const stalled = setting.proxy.next({ from: "server", type: "C", action: "stall" });
  const answer = client.query("INSERT INTO t VALUES (1)");
  await stalled;
  await until(async () => (await count(setting.database)) === 1, { what: "the row" });
  expect(await Promise.race([answer, Promise.resolve("silent")])).toBe("silent");
  setting.proxy.resume();
  expect(await answer).toMatchObject({ rowCount: 1 });
  await client.end();
});

test.for(["client", "server"] as const)(
  "half open: the %s keeps its connection, the other has lost it",
  async (keep) => {
    await using setting = await proxied();
    const client = await setting.session();
    let ended = false;
    client.on("end", () => {
      ended = true;
    });
    setting.proxy.halfOpen(keep);
    if (keep === "client") {
      await until(async () => (await sessionsOf(setting.database)) === 0, { what: "the server to notice" });
      expect(ended).toBe(false);
      // Silence, not an error: the query is neither answered nor refused.
      const lost = client.query("INSERT INTO t VALUES (1)").then(
        () => "answered",
        () => "failed",
      );
      expect(await (await setting.session()).query("SELECT 1")).toMatchObject({ rowCount: 1 });
      expect(await Promise.race([lost, Promise.resolve("silent")])).toBe("silent");
      setting.proxy.cut();
      expect(await lost).toBe("failed");
    } else {
      await until(() => ended, { what: "the client to notice" });
      expect(await sessionsOf(setting.database)).toBe(1);
    }
  },
);

test("it refuses connections as a server that is down, and accepts them at the same port again", async () => {
  await using setting = await proxied();
  const { port } = setting.proxy;
  setting.proxy.refuse();
  await expect(setting.session()).rejects.toThrow(/ECONNREFUSED/);
  await setting.proxy.accept();
  expect(setting.proxy.port).toBe(port);
  await (await setting.session()).end();
});

test("a throttled and delayed connection answers all the same", async () => {
  await using setting = await proxied();
  const client = await setting.session();
  setting.proxy.throttle(100_000);
  setting.proxy.delay(20);
  const { rows } = await client.query("SELECT repeat('x', 10000) AS v");
  expect(rows).toEqual([{ v: "x".repeat(10000) }]);
  await client.end();
});

test("a server that is not there ends the connection, not the test", async () => {
  using gone = await startProxy({ target: { port: 1 } });
  await expect(openSession(gone.url(sharedCluster("target").url()))).rejects.toThrow(/ECONNRESET|terminated/);
  await until(() => gone.connections === 0, { what: "the connection to be forgotten" });
});
