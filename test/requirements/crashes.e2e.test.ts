import { afterAll, beforeAll, expect, test } from "vitest";
import { startCluster } from "../../src/demo/cluster.ts";
import { querySession } from "../support/bad-input.ts";
import { BuiltCli } from "../support/built-cli.ts";
import { freshDatabase, openSession, sharedCluster, testMajor } from "../support/clusters.ts";
import { configFile, done, masterAndSlave, rserv } from "../support/commands.ts";
import { expectEqualTables } from "../support/compare.ts";
import { commandTag, type FrameRule, startProxy } from "../support/proxy.ts";
import { setNextTransaction } from "../support/transaction-counter.ts";
import { until } from "../support/wait.ts";

let cli: BuiltCli;

beforeAll(async () => {
  cli = await BuiltCli.build();
});

afterAll(async () => {
  await cli[Symbol.asyncDispose]();
});

/** Without a key nothing but a count tells that a row was written twice. */
const SCHEMA = "create table account (id int primary key, balance int); create table event (n int);";

const COMMITTED: FrameRule = {
  from: "server",
  type: "C",
  match: (frame) => commandTag(frame) === "COMMIT",
  action: "stall",
};

test(
  "T9: a replicator that is killed between the commit on the target and its acknowledgement, or at any other step, or runs twice, loses and repeats nothing",
  { timeout: 120_000 },
  async () => {
    await using source = await freshDatabase(sharedCluster("source"));
    await using target = await freshDatabase(sharedCluster("target"));
    for (const database of [source, target]) await database.query(SCHEMA);
    await source.query("insert into account values (1, 0)");
    using link = await startProxy({ target: { port: target.server.port } });
    const { name } = target;
    await using file = await configFile(source.url, { [name]: link.url(target.url) }, "timeout: 2s\n");
    const steps: readonly FrameRule[] = [
      COMMITTED,
      COMMITTED,
      { from: "client", type: "B", action: "stall" },
      { from: "server", type: "2", action: "stall" },
      { from: "client", type: "S", action: "stall" },
    ];
    await done(file.run("sync"));
    let n = 0;
    const write = (): Promise<unknown> =>
      source.query(
        `begin; insert into event values (${++n}); update account set balance = balance + 1; commit`,
      );
    for (const step of steps) {
      await using running = cli.start("run", "-c", file.path);
      await running.prints(/streaming/);
      const struck = link.next(step);
      await write();
      await struck;
      // What it was told it never reads, and what it would say is never said.
      running.process.kill("SIGKILL");
      await running.finished;
      link.resume();
      await write();
    }
    // Two at once: one waits for the other.
    await using first = cli.start("run", "-c", file.path);
    await using second = cli.start("run", "-c", file.path);
    await until(() => /ERS-508/.test(first.output + second.output), { what: "one of them to wait" });
    await write();
    await done(file.run("sync"));
    for (const one of [first, second]) one.process.kill("SIGTERM");
    for (const one of [first, second]) expect(await one.finished).toMatchObject({ exit: 0 });
    await expectEqualTables(source.url, target.url);
    expect(
      await target.query("select count(*)::int as n, count(distinct n)::int as different from event"),
    ).toEqual([{ n, different: n }]);
    expect(await target.query("select conflicts::int from erserver.progress")).toEqual([{ conflicts: 0 }]);

    // The same of the old Replicate, which is run again after each crash.
    await using pair = await masterAndSlave({
      schema: SCHEMA,
      rows: "insert into account values (1, 0)",
      tables: ["account"],
    });
    await done(rserv("MasterAddTable", pair.master.url, "event", "--full-refresh"));
    await done(rserv("SlaveAddTable", pair.slave.url, "event"));
    using toSlave = await startProxy({ target: { port: pair.slave.server.port } });
    const slaveUrl = toSlave.url(pair.slave.url);
    for (const [index, step] of steps.entries()) {
      await pair.master.query(
        `insert into event values (${index}); update account set balance = balance + 1`,
      );
      const struck = toSlave.next(step);
      await using replicating = cli.start("rserv", "Replicate", pair.master.url, slaveUrl);
      await struck;
      replicating.process.kill("SIGKILL");
      await replicating.finished;
      toSlave.resume();
    }
    const both = await Promise.all([
      rserv("Replicate", pair.master.url, slaveUrl),
      rserv("Replicate", pair.master.url, slaveUrl),
    ]);
    expect(both).toEqual([expect.objectContaining({ exit: 0 }), expect.objectContaining({ exit: 0 })]);
    await expectEqualTables(pair.master.url, pair.slave.url);
  },
);

test(
  "T12: transaction numbers beyond 2^31, and those that begin anew after 2^32, lose nothing, whether changes come from the WAL or from triggers",
  { timeout: 120_000 },
  async () => {
    await using source = await startCluster({ major: testMajor("source") });
    await querySession(
      source.url(),
      `${SCHEMA} alter table event replica identity full; insert into account select i, 0 from generate_series(1, 5) i`,
    );
    await setNextTransaction(source, 2 ** 32 - 80);
    await using followed = await freshDatabase(sharedCluster("target"));
    await using slave = await freshDatabase(sharedCluster("target"));
    for (const database of [followed, slave]) await database.query(SCHEMA);
    await using file = await configFile(source.url(), { [followed.name]: followed.url }, "capture: wal\n");
    await done(file.run("sync"));
    await done(rserv("MasterInit", source.url()));
    await done(rserv("SlaveInit", slave.url));
    await done(rserv("MasterAddTable", source.url(), "account"));
    await done(rserv("SlaveAddTable", slave.url, "account"));
    const replicate = async (): Promise<void> => {
      await done(file.run("sync"));
      await done(rserv("Replicate", source.url(), slave.url));
      await expectEqualTables(source.url(), followed.url);
      await expectEqualTables(source.url(), slave.url, ["public.account"]);
    };
    await replicate();
    const session = await openSession(source.url());
    const long = await openSession(source.url());
    try {
      const number = async (): Promise<number> => {
        const { rows } = await session.query<{ xid: string }>(
          "select (txid_current() % (2 ^ 32)::bigint)::text as xid",
        );
        return Number(rows[0]?.xid);
      };
      expect(await number()).toBeGreaterThan(2 ** 31);
      // Begins with a number at the end, and commits among those at the beginning.
      await long.query("begin; update account set balance = -1 where id = 5");
      for (let n = 1; (await number()) > 2 ** 31; n++) {
        await session.query(
          `begin; update account set balance = balance + 1 where id < 4; insert into event values (${n}); commit`,
        );
        if (n % 10 === 0) await replicate();
      }
      await session.query(
        "update account set balance = balance + 100 where id = 1; insert into account values (6, 6)",
      );
      await replicate();
      await long.query("commit");
      await session.query("delete from account where id = 2");
      await replicate();
    } finally {
      await session.end();
      await long.end();
    }
  },
);
