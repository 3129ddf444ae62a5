import type { Duplex } from "node:stream";

import { Client } from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { type FreshDatabase, freshDatabase, sharedCluster, testMajor } from "../../test/support/clusters.ts";
import { startCluster } from "../demo/cluster.ts";
import { ServerError } from "../errors/server-error.ts";
import { WireConnection } from "./connection.ts";
import { framePayloads } from "./frame-runs.ts";
import { COPY_DATA, COPY_DONE_FRAME } from "./frontend.ts";
import { FrameWriter } from "./writer.ts";

async function one(connection: WireConnection, sql: string): Promise<string | null | undefined> {
  return (await connection.query(sql)).at(-1)?.rows[0]?.[0];
}

const digest = (table: string): string => `select md5(string_agg(r::text, ',' order by a)) from ${table} r`;

/** What pg 8.23.1 must keep to: the socket is at `connection.stream`, idle after `connect`, and has these listeners only. */
describe("a socket taken over from pg", () => {
  let database: FreshDatabase;
  const open: WireConnection[] = [];

  beforeAll(async () => {
    database = await freshDatabase(sharedCluster("source"));
  });

  afterAll(async () => {
    for (const connection of open) connection.destroy();
    await database[Symbol.asyncDispose]();
  });

  async function connect(config: { replication?: string; url?: string } = {}): Promise<WireConnection> {
    const { url = database.url, replication } = config;
    const client = new Client({
      connectionString: url,
      ...(replication === undefined ? {} : { replication }),
    });
    client.on("error", () => {});
    await client.connect();
    const socket = (client as unknown as { connection: { stream: Duplex } }).connection.stream;
    expect(socket.listenerCount("data")).toBe(1);
    for (const event of ["data", "error", "close", "end"]) socket.removeAllListeners(event);
    const connection = new WireConnection(socket, "postgres@test");
    open.push(connection);
    return connection;
  }

  test("answers several statements of one simple query, each with its fields, rows and tag", async () => {
    const connection = await connect();
    const results = await connection.query(
      "create temp table t (a int, b text); insert into t values (1, 'ü'), (2, null); select * from t order by a; ;",
    );
    expect(results.map((result) => result.command)).toEqual(["CREATE TABLE", "INSERT 0 2", "SELECT 2"]);
    expect(results[2]).toEqual({
      fields: ["a", "b"],
      rows: [
        ["1", "ü"],
        ["2", null],
      ],
      command: "SELECT 2",
    });
    expect((await connection.query(""))[0]?.command).toBe("");
    await connection.end();
    expect(connection.alive).toBe(false);
  });

  test("reports an error with its fields and goes on; queries may be sent without waiting", async () => {
    const connection = await connect();
    const [first, second, third] = await Promise.allSettled([
      connection.query("select 1/0"),
      connection.query("begin; select x from nowhere"),
      connection.query("rollback"),
    ]);
    expect(first).toMatchObject({
      status: "rejected",
      reason: { code: "22012", fields: { severity: "ERROR" } },
    });
    expect(second).toMatchObject({ reason: { code: "42P01" } });
    expect(third).toMatchObject({ value: [{ command: "ROLLBACK" }] });
    expect(connection.transactionStatus).toBe("I");
  });

  test("hands notices and changed parameters out, wherever they come", async () => {
    const connection = await connect();
    const notices: string[] = [];
    connection.onNotice = (fields) => notices.push(fields.message);
    await connection.query("set application_name = 'wire'; do $$ begin raise notice 'hello'; end $$");
    expect(notices).toEqual(["hello"]);
    expect(connection.parameters.get("application_name")).toBe("wire");
  });

  test("runs a batch of text and binary parameters in one transaction", async () => {
    const connection = await connect();
    await connection.query("create temp table t (a int primary key, b text)");
    const batch = connection.batch();
    batch.parse("ins", "insert into t values ($1, $2)", [23, 25]);
    batch.bindExecute("ins", ["1", "one"]);
    batch.bindExecute("ins", [Buffer.from([0, 0, 0, 2]), null]);
    batch.parse("", "update t set b = b || 'x' where a < $1", [23]);
    batch.bindExecute("", ["9"]);
    batch.parse("", "select a, b from t order by a", []);
    batch.bindExecute("", []);
    batch.parse("", "truncate t", []);
    batch.bindExecute("", []);
    batch.closeStatement("ins");
    const result = await batch.send();
    expect(result.error).toBeUndefined();
    expect(result).toMatchObject({ affected: [1, 1, 2, 2, 0], failedAt: -1, status: "I" });
    expect(result.rows.get(3)).toEqual([
      ["1", "onex"],
      ["2", null],
    ]);
    expect(result.tags.get(4)).toBe("TRUNCATE TABLE");
  });

  test("a batch that is held goes out when it is released, behind what was sent meanwhile", async () => {
    const connection = await connect();
    await connection.query("create temp table t (a int)");
    const held = connection.batch().hold();
    held.parse("", "select count(*) from t", []);
    held.bindExecute("", []);
    await held.flush();
    const sending = held.released().then(() => held.send());
    const other = connection.batch();
    other.parse("", "insert into t values (1)", []);
    other.bindExecute("", []);
    expect((await other.send()).affected).toEqual([1]);
    held.release();
    expect((await sending).rows.get(0)).toEqual([["1"]]);
  });

  test("a batch that is abandoned is not sent, also in part, and others go on", async () => {
    const connection = await connect();
    await connection.query("create temp table t (a int)");
    const held = connection.batch().hold();
    held.parse("", "insert into t values (1)", []);
    held.bindExecute("", []);
    await held.flush();
    held.abandon();
    await held.released();
    await held.flush();
    expect(held.failed).toBe(true);
    await expect(held.send()).rejects.toThrow("abandoned");
    expect(await one(connection, "select count(*) from t")).toBe("0");
  });

  test("a batch that fails in the middle says where, and nothing of it stays", async () => {
    const connection = await connect();
    await connection.query("create temp table t (a int primary key)");
    const batch = connection.batch();
    batch.parse("ins", "insert into t values ($1)", []);
    for (const key of ["1", "2", "1", "3"]) batch.bindExecute("ins", [key]);
    const result = await batch.send();
    expect(result).toMatchObject({ affected: [1, 1], failedAt: 2, error: { code: "23505" } });
    expect(batch.failed).toBe(true);
    expect(await one(connection, "select count(*) from t")).toBe("0");

    const parse = connection.batch();
    parse.parse("", "select 1", []);
    parse.bindExecute("", []);
    parse.parse("", "select nonsense", []);
    parse.bindExecute("", []);
    expect(await parse.send()).toMatchObject({ affected: [1], failedAt: 1, error: { code: "42703" } });
  });

  test("COMMIT in a failed transaction is seen to roll back", async () => {
    const connection = await connect();
    await connection.query("begin");
    await expect(connection.query("select 1/0")).rejects.toBeInstanceOf(ServerError);
    const batch = connection.batch();
    batch.parse("", "commit", []);
    batch.bindExecute("", []);
    const result = await batch.send();
    expect(result.tags.get(0)).toBe("ROLLBACK");
  });

  test("a failure of the implicit commit counts for the Execute behind the last", async () => {
    const connection = await connect();
    await connection.query("create temp table t (a int primary key deferrable initially deferred)");
    const batch = connection.batch();
    batch.parse("", "insert into t values (1), (1)", []);
    batch.bindExecute("", []);
    expect(await batch.send()).toMatchObject({ affected: [2], failedAt: 1, error: { code: "23505" } });
  });

  test("a batch larger than every buffer, whose answers are as large, does not block", async () => {
    const connection = await connect();
    const batch = connection.batch();
    const value = Buffer.alloc(1_000_000, "x");
    batch.parse("echo", "select $1::text", [25]);
    for (let i = 0; i < 40; i++) {
      batch.startBind("echo", 1);
      batch.format(0);
      batch.startValues(1);
      batch.value(value, 0, value.length);
      batch.endBind();
      batch.execute();
      if (batch.buffered > 65_536) await batch.flush();
    }
    const result = await batch.send();
    expect(result.rows.size).toBe(40);
    expect(result.rows.get(39)?.[0]?.[0]).toHaveLength(1_000_000);
  });

  test("a batch may carry a COPY and its data, and a later error undoes both", async () => {
    const connection = await connect();
    await connection.query("create temp table t (a int, b text)");
    const batch = connection.batch();
    const copy = (): void => {
      batch.parse("", "copy t from stdin", []);
      batch.bindExecute("", []);
      batch.writer.begin(COPY_DATA);
      batch.writer.text("1\tone\n2\ttwo\n");
      batch.writer.end();
      batch.writer.bytes(COPY_DONE_FRAME);
    };
    copy();
    batch.parse("", "update t set a = a + 1", []);
    batch.bindExecute("", []);
    expect(await batch.send()).toMatchObject({ affected: [2, 2], failedAt: -1 });

    const failing = connection.batch();
    failing.parse("", "copy t from stdin", []);
    failing.bindExecute("", []);
    failing.writer.begin(COPY_DATA);
    failing.writer.text("not a number\tone\n");
    failing.writer.end();
    failing.writer.bytes(COPY_DONE_FRAME);
    failing.parse("", "delete from t", []);
    failing.bindExecute("", []);
    expect(await failing.send()).toMatchObject({ affected: [], failedAt: 0, error: { code: "22P02" } });
    expect(await one(connection, "select sum(a) from t")).toBe("5");
  });

  test("relays a table from COPY TO to COPY FROM as raw frames", async () => {
    const source = await connect();
    const target = await connect();
    await source.query(
      "create table relay as select i as a, repeat(i::text, i % 1000) as b from generate_series(1, 20000) i; create table relay_to (like relay)",
    );
    const out = source.copyOut("copy relay to stdout (format binary)");
    const into = await target.copyIn("copy relay_to from stdin (format binary)");
    let payloads = 0;
    for await (const run of out) {
      framePayloads(run, () => payloads++);
      await into.writeFrames(run);
    }
    expect(out.rows).toBe(20_000);
    // The header and the trailer of the format come in frames of their own up to 17.
    expect(payloads).toBeGreaterThanOrEqual(20_000);
    expect(await into.done()).toBe(20_000);
    expect(await one(target, digest("relay_to"))).toBe(await one(source, digest("relay")));
  });

  test.each(["text", "binary"] as const)("gives the rows of a query as they come: %s", async (format) => {
    const connection = await connect();
    const rows = connection.select(
      ["select i, case when i % 2 = 0 then repeat('x', i) end from generate_series(1, 3000) as i"],
      format,
    );
    let sum = 0;
    let nulls = 0;
    for await (const run of rows) {
      framePayloads(run, (bytes, start) => {
        expect(bytes.readInt16BE(start)).toBe(2);
        const length = bytes.readInt32BE(start + 2);
        const value =
          format === "text"
            ? Number(bytes.toString("latin1", start + 6, start + 6 + length))
            : bytes.readInt32BE(start + 6);
        sum += value;
        const second = bytes.readInt32BE(start + 6 + length);
        if (second === -1) nulls++;
        else expect(second).toBe(value);
      });
    }
    expect(rows.rows).toBe(3000);
    expect({ sum, nulls }).toEqual({ sum: 4_501_500, nulls: 1500 });
    const failing = connection.select(["select 1 / (i - 2) from generate_series(1, 3) as i"], format);
    await expect(async () => {
      for await (const _run of failing);
    }).rejects.toMatchObject({ code: "22012" });
    expect(await one(connection, "select 7")).toBe("7");
  });

  test("gives the rows of several queries in one flight, and says which they are of", async () => {
    const connection = await connect();
    const counts = [2000, 0, 1, 70_000];
    const rows = connection.select(
      counts.map((count) => `select repeat('x', 20) from generate_series(1, ${count})`),
      "text",
    );
    const found = counts.map(() => 0);
    for await (const run of rows) framePayloads(run, () => found[rows.statement]!++);
    expect(found).toEqual(counts);
    expect(rows.rows).toBe(72_001);
    // What comes behind a failure is not run.
    const failing = connection.select(["select 1", "select 1 / 0", "select 2"], "text");
    const seen: number[] = [];
    await expect(async () => {
      for await (const _run of failing) seen.push(failing.statement);
    }).rejects.toMatchObject({ code: "22012" });
    expect(seen).toEqual([0]);
    expect(await one(connection, "select 7")).toBe("7");
  });

  test("a slow consumer of COPY TO holds the server back instead of filling memory", async () => {
    const connection = await connect();
    const watcher = await connect();
    const pid = await one(connection, "select pg_backend_pid()");
    const out = connection.copyOut(
      "copy (select repeat('x', 1000) from generate_series(1, 100000)) to stdout",
    );
    let bytes = 0;
    let waited = false;
    for await (const run of out) {
      if (!waited) {
        waited = true;
        await expect
          .poll(() => one(watcher, `select wait_event from pg_stat_activity where pid = ${pid}`), {
            timeout: 10_000,
          })
          .toBe("ClientWrite");
      }
      bytes += run.length;
    }
    expect(bytes).toBe(100_000 * (1001 + 5));
    expect(out.rows).toBe(100_000);
  });

  test("an error before or within COPY TO ends the iteration with it", async () => {
    const connection = await connect();
    const collect = async (sql: string): Promise<number> => {
      let bytes = 0;
      for await (const run of connection.copyOut(sql)) bytes += run.length;
      return bytes;
    };
    await expect(collect("copy nowhere to stdout")).rejects.toMatchObject({ code: "42P01" });
    await expect(
      collect("copy (select 1 / (50000 - i) from generate_series(1, 60000) i) to stdout"),
    ).rejects.toMatchObject({ code: "22012" });
    expect(await one(connection, "select 1")).toBe("1");
  });

  test("leaving COPY TO early gives the connection up", async () => {
    const connection = await connect();
    for await (const run of connection.copyOut(
      "copy (select * from generate_series(1, 1000000)) to stdout",
    )) {
      expect(run.length).toBeGreaterThan(0);
      break;
    }
    expect(connection.alive).toBe(false);
    expect(await connection.closed).toMatchObject({ code: "ERS-204" });
  });

  test("an error within COPY FROM rejects the next call and leaves the connection usable", async () => {
    const connection = await connect();
    await connection.query("create temp table t (a int)");
    await expect(connection.copyIn("copy nowhere from stdin")).rejects.toMatchObject({ code: "42P01" });

    const copy = await connection.copyIn("copy t from stdin");
    await copy.write(Buffer.from("1\n"));
    await copy.write(Buffer.from("one\n"));
    await expect(copy.done()).rejects.toMatchObject({ code: "22P02" });
    expect(await one(connection, "select count(*) from t")).toBe("0");

    const endless = await connection.copyIn("copy t from stdin");
    const frame = new FrameWriter();
    frame.begin(COPY_DATA);
    frame.text("x\n");
    frame.end();
    const bytes = frame.take();
    await expect(
      (async () => {
        for (;;) {
          await endless.writeFrames(bytes);
          await new Promise((resolve) => setImmediate(resolve));
        }
      })(),
    ).rejects.toMatchObject({ code: "22P02" });
    await endless.fail("too late");
    expect(await one(connection, "select count(*) from t")).toBe("0");
  });

  test("COPY FROM can be called off", async () => {
    const connection = await connect();
    await connection.query("create temp table t (a int)");
    const copy = await connection.copyIn("copy t from stdin");
    await copy.write(Buffer.from("1\n"));
    await copy.fail("no more");
    expect(await one(connection, "select count(*) from t")).toBe("0");
    const again = await connection.copyIn("copy t from stdin");
    await again.write(Buffer.from("1\n"));
    expect(await again.done()).toBe(1);
  });

  test("streams replication both ways, pauses, ends, and can be used for queries again", async () => {
    const plain = await connect();
    await plain.query("create table streamed (a int); create publication p for table streamed");
    const walsender = await connect({ replication: "database" });
    const created = await walsender.query(
      `CREATE_REPLICATION_SLOT "${database.name}_s" TEMPORARY LOGICAL pgoutput`,
    );
    expect(created[0]?.fields).toContain("consistent_point");
    const types: string[] = [];
    const stream = await walsender.copyBoth(
      `START_REPLICATION SLOT "${database.name}_s" LOGICAL 0/0 (proto_version '1', publication_names 'p')`,
      (bytes, start, end) => {
        const inner = bytes[start] === 0x77 ? start + 25 : start;
        if (end > inner) types.push(String.fromCharCode(bytes[inner] as number));
      },
    );
    await plain.query("insert into streamed values (1)");
    await expect.poll(() => types.filter((type) => type !== "k").join("")).toBe("BRIC");

    stream.pause();
    await plain.query("insert into streamed select * from generate_series(1, 100000)");
    const status = Buffer.alloc(34);
    status[0] = 0x72;
    const lsn = await one(plain, "select pg_current_wal_lsn() - '0/0'");
    for (const at of [1, 9, 17]) status.writeBigUInt64BE(BigInt(lsn as string), at);
    stream.send(status);
    stream.resume();
    await expect.poll(() => types.filter((type) => type === "I").length, { timeout: 10_000 }).toBe(100_001);

    await stream.end();
    await stream.finished;
    expect(await one(walsender, "select 1")).toBe("1");
  });

  test("a replication command that fails rejects, and an exception of the consumer destroys the connection", async () => {
    const walsender = await connect({ replication: "database" });
    await expect(
      walsender.copyBoth(`START_REPLICATION SLOT "none" LOGICAL 0/0`, () => {}),
    ).rejects.toMatchObject({ code: "42704" });
    expect(walsender.alive).toBe(true);

    await walsender.query(`CREATE_REPLICATION_SLOT "${database.name}_t" TEMPORARY LOGICAL pgoutput`);
    const stream = await walsender.copyBoth(
      `START_REPLICATION SLOT "${database.name}_t" LOGICAL 0/0 (proto_version '1', publication_names 'p')`,
      () => {
        throw new Error("cannot take it");
      },
    );
    await expect(stream.finished).rejects.toThrow("cannot take it");
    expect((await walsender.closed).message).toBe("cannot take it");
  });

  test("a terminated backend is a lost connection, with the server's words", async () => {
    const lost = { code: "ERS-204", cause: { code: "57P01" } };
    const connection = await connect();
    const killer = await connect();
    const pid = await one(connection, "select pg_backend_pid()");
    const sleeping = connection.query("select pg_sleep(60)");
    const never = connection.query("select 1");
    await killer.query(`select pg_terminate_backend(${pid})`);
    await expect(sleeping).rejects.toMatchObject(lost);
    await expect(never).rejects.toMatchObject(lost);
    expect(await connection.closed).toMatchObject(lost);
    await expect(connection.query("select 1")).rejects.toMatchObject(lost);
    await expect(connection.batch().send()).rejects.toMatchObject(lost);
  });

  test("destroy rejects everything at once, with the reason", async () => {
    const connection = await connect();
    const reason = new Error("enough");
    const pending = connection.query("select pg_sleep(60)");
    connection.destroy(reason);
    await expect(pending).rejects.toBe(reason);
    expect(await connection.closed).toBe(reason);
  });

  test("an operation cannot begin in the middle of another", async () => {
    const connection = await connect();
    await connection.query("create temp table t (a int)");
    const copy = await connection.copyIn("copy t from stdin");
    await expect(connection.query("select 1")).rejects.toMatchObject({ code: "ERS-901" });
    const batch = connection.batch();
    await expect(batch.flush()).rejects.toMatchObject({ code: "ERS-901" });
    await expect(batch.send()).rejects.toMatchObject({ code: "ERS-901" });
    expect(await copy.done()).toBe(0);
    expect(await one(connection, "select 1")).toBe("1");
  });

  test("a walsender of a server that shuts down ends the stream without an error", async () => {
    await using second = await startCluster({ major: testMajor("source") });
    const walsender = await connect({ url: second.url(), replication: "database" });
    await walsender.query("create publication p for all tables");
    await walsender.query(`CREATE_REPLICATION_SLOT "${database.name}_s" TEMPORARY LOGICAL pgoutput`);
    const stream = await walsender.copyBoth(
      `START_REPLICATION SLOT "${database.name}_s" LOGICAL 0/0 (proto_version '1', publication_names 'p')`,
      (bytes, start) => {
        if (bytes[start] !== 0x6b) return;
        const status = Buffer.alloc(34);
        status[0] = 0x72;
        for (const at of [1, 9, 17]) bytes.copy(status, at, start + 1, start + 9);
        stream.send(status);
      },
    );
    await Promise.all([stream.finished, second.stop("fast")]);
    expect(walsender.alive).toBe(false);
  });
});
