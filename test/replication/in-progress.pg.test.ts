/** Large transactions, which are written to the target while they are in progress on the source. */
import type { Client } from "pg";
import { describe, expect, test } from "vitest";
import { createLogger } from "../../src/observability/log.ts";
import { syncTarget } from "../../src/pipeline/sync.ts";
import { testMajor } from "../support/clusters.ts";
import {
  type Replication,
  type ReplicationOptions,
  startReplication,
  testLog,
} from "../support/pipeline-context.ts";
import { until } from "../support/wait.ts";

const streams = testMajor("source") >= 14 && process.env["ERSERVER_TEST_GEAR"] !== "bulk";

const SCHEMA = "create table t (id int primary key, body text, n int not null default 0)";

/** Whatever is larger than this comes while it is in progress. */
const EARLY = `do $$ begin execute format('alter database %I set logical_decoding_work_mem = ''64kB''', current_database()); end $$`;

async function start(options: ReplicationOptions = {}): Promise<Replication> {
  const replication = await startReplication({
    schema: SCHEMA,
    ...options,
    sourceSchema: `${EARLY}; ${options.sourceSchema ?? ""}`,
  });
  await replication.caughtUp();
  return replication;
}

/** So that a block is sent. */
const rows = (first: number, count = 3_000): string =>
  `insert into t select i, repeat(md5(i::text), 3), i from generate_series(${first}, ${first + count - 1}) i`;

/** Begins a transaction on the source and waits until the target has some of it, which nobody sees. */
async function begin(replication: Replication, statements: readonly string[]): Promise<Client> {
  const before = await open(replication);
  const session = await replication.source.connect();
  for (const statement of ["begin", ...statements]) await session.query(statement);
  await until(async () => (await open(replication)) > before, {
    what: "the transaction to reach the target",
  });
  return session;
}

/** Transactions in which the target has rows of `t` written. */
async function open({ target }: Replication): Promise<number> {
  const [row] = await target.query<{ count: number }>(
    "select count(distinct pid)::int from pg_locks where relation = 't'::regclass and mode = 'RowExclusiveLock'",
  );
  return row?.count ?? 0;
}

async function rowsOnTarget({ target }: Replication, where = "true"): Promise<number> {
  const [row] = await target.query<{ count: number }>(`select count(*)::int from t where ${where}`);
  return row?.count ?? 0;
}

const wasOffline = ({ running }: Replication): boolean =>
  running.statuses.some(({ state }) => state === "offline");

describe.runIf(streams)("a large transaction", () => {
  test("is written before it commits, beside others, and seen when it has committed", async () => {
    await using replication = await start();
    const { source } = replication;
    const large = await begin(replication, [rows(1)]);
    for (let id = -1; id >= -20; id--) await source.query(`insert into t values (${id}, 'small')`);
    await large.query(rows(10_001));
    await large.query("update t set n = -n where id between 1 and 500");
    await large.query("delete from t where id between 501 and 600");
    await replication.caughtUp();
    expect(await rowsOnTarget(replication)).toBe(20);
    await large.query("commit");
    await source.query("insert into t values (-21, 'behind')");
    await replication.expectEqual();
    expect(await rowsOnTarget(replication)).toBe(5_921);
    expect(wasOffline(replication)).toBe(false);
    expect(await open(replication)).toBe(0);
    const [progress] = await replication.target.query("select replays, conflicts from erserver.progress");
    expect(progress).toEqual({ replays: "0", conflicts: "0" });
  });

  test("may be idle for longer than servers and connections usually bear", async () => {
    await using replication = await start({ config: "timeout: 1s" });
    const large = await begin(replication, [rows(1)]);
    await new Promise((resolve) => setTimeout(resolve, 6_000));
    expect(await open(replication)).toBe(1);
    await large.query("commit");
    await replication.expectEqual();
    expect(wasOffline(replication)).toBe(false);
  });

  test("that is rolled back leaves nothing, and its session to the next", async () => {
    await using replication = await start();
    for (let round = 0; round < 3; round++) {
      const large = await begin(replication, [rows(1), "truncate t", rows(1)]);
      await large.query("rollback");
      await until(async () => (await open(replication)) === 0, { what: "the target to take it back" });
    }
    const large = await begin(replication, [rows(1)]);
    await large.query("commit");
    await replication.expectEqual();
    expect(wasOffline(replication)).toBe(false);
    const [sessions] = await replication.target.query<{ count: number }>(
      "select count(*)::int from pg_stat_activity where datname = current_database() and application_name like 'erserver %' and application_name <> 'erserver test'",
    );
    // For questions, for groups (as many as there are workers), and one for all three.
    expect(sessions?.count).toBeLessThanOrEqual(2 + Number(process.env["ERSERVER_TEST_WORKERS"] ?? 1));
  });

  test("of which a part is rolled back is taken back whole, and written when it has committed", async () => {
    const lines: string[] = [];
    await using replication = await start({
      log: createLogger({ level: "info", write: (line) => lines.push(line) }),
    });
    const large = await begin(replication, [rows(1), "savepoint one", rows(10_001)]);
    await large.query("rollback to savepoint one");
    await large.query(rows(20_001));
    await until(() => lines.join("").includes("ERS-510"), { what: "the log to say so" });
    expect(replication.running.statuses.find(({ state }) => state === "offline")?.side).toBe("source");
    await replication.source.query("insert into t values (-1, 'meanwhile')");
    await replication.caughtUp();
    expect(await rowsOnTarget(replication)).toBe(1);
    await large.query("commit");
    await replication.expectEqual();
    expect(await rowsOnTarget(replication)).toBe(6_001);
  });

  test("and others, more than are written at once", async () => {
    await using replication = await start();
    const { source, target } = replication;
    const sessions: Client[] = [];
    for (let at = 0; at < 4; at++) sessions.push(await begin(replication, [rows(at * 10_000 + 1)]));
    await source.query("insert into t values (-1, 'meanwhile')");
    await replication.caughtUp();
    expect(await rowsOnTarget(replication)).toBe(1);
    await sessions[2]?.query("commit");
    await until(async () => (await rowsOnTarget(replication)) === 3_001, { what: "the third" });
    await sessions[0]?.query("rollback");
    await until(async () => (await open(replication)) === 2, { what: "the first to be taken back" });
    for (let at = 5; at < 8; at++) {
      const session = await source.connect();
      await session.query("begin");
      await session.query(rows(at * 10_000 + 1));
      sessions.push(session);
    }
    // One too many: from there on all of them wait for their commits.
    await until(() => wasOffline(replication), { what: "the pipeline to be opened anew" });
    for (const at of [6, 1, 4, 3, 5]) await sessions[at]?.query("commit");
    await replication.expectEqual();
    expect(await rowsOnTarget(replication)).toBe(6 * 3_000 + 1);
    expect((await target.query("select conflicts from erserver.progress"))[0]).toEqual({ conflicts: "0" });
  });

  test("whose rows are not as they should be on the target is no conflict before it commits", async () => {
    await using replication = await start({ rows: rows(1, 100) });
    const { target } = replication;
    await target.query("delete from t where id = 7");
    const large = await replication.source.connect();
    for (const sql of ["begin", "update t set n = 1 where id = 7", rows(1_001)]) await large.query(sql);
    await until(() => wasOffline(replication), { what: "the pipeline to be opened anew" });
    await replication.source.query("insert into t values (-1, 'meanwhile')");
    await replication.caughtUp();
    expect(await target.query("select from erserver.conflict")).toEqual([]);
    await large.query("commit");
    await replication.expectEqual();
    expect(await target.query("select from erserver.conflict")).toHaveLength(1);
  });

  /** A lock that the source has nothing of. */
  const COUNTED = `create table public.counter (n int); insert into public.counter values (0);
    create function counted() returns trigger language plpgsql as 'begin update public.counter set n = n + 1; return null; end';
    create trigger counted after insert on t execute function counted();
    alter table t enable always trigger counted`;
  const ONLY_T = "tables: { include: [public.t] }";

  test("that locks on the target what an earlier one needs gives way to it", async () => {
    await using replication = await start({ targetSchema: COUNTED, config: ONLY_T });
    const large = await begin(replication, [rows(1)]);
    await replication.source.query("insert into t values (-1, 'small')");
    await replication.caughtUp();
    expect(wasOffline(replication)).toBe(true);
    expect(await rowsOnTarget(replication)).toBe(1);
    await large.query("commit");
    await replication.expectEqual(["public.t"]);
  });

  test("that locks what an earlier one needs to be written in another way gives way to it", async () => {
    await using replication = await start({ targetSchema: COUNTED, config: ONLY_T, rows: rows(1, 100) });
    await replication.target.query("delete from t where id = 7");
    const large = await begin(replication, [rows(1_001)]);
    await replication.source.query("update t set n = 1 where id = 7");
    await replication.caughtUp();
    expect(wasOffline(replication)).toBe(true);
    await large.query("commit");
    await replication.expectEqual(["public.t"]);
  });

  test("that locks what another in progress needs gives way to it", async () => {
    await using replication = await start({ targetSchema: COUNTED, config: ONLY_T });
    const first = await begin(replication, [rows(1)]);
    const second = await replication.source.connect();
    for (const sql of ["begin", rows(10_001), rows(20_001), rows(30_001)]) await second.query(sql);
    await until(() => wasOffline(replication), { what: "the pipeline to be opened anew" });
    await first.query("commit");
    await second.query("commit");
    await replication.expectEqual(["public.t"]);
    expect(await rowsOnTarget(replication)).toBe(12_000);
  });

  test("gives way to one that waits for somebody who waits for it", async () => {
    await using replication = await start();
    const large = await begin(replication, [rows(1)]);
    const somebody = await replication.target.connect();
    const indexed = somebody.query("create index on t (n)");
    await until(
      async () =>
        (
          await replication.target.query(
            "select from pg_locks where relation = 't'::regclass and not granted",
          )
        ).length > 0,
      { what: "the index to wait" },
    );
    await replication.source.query("insert into t values (-1, 'small')");
    await replication.caughtUp();
    await indexed;
    await large.query("commit");
    await replication.expectEqual();
  });

  test("that makes a partition is written when it has committed, and the partition copied", async () => {
    await using replication = await startReplication({
      schema: `create table p (id int, body text, primary key (id)) partition by range (id);
        create table p0 partition of p for values from (0) to (1000000)`,
      sourceSchema: EARLY,
      targetSchema: "create table p1 partition of p for values from (1000000) to (2000000)",
      config: "tables: { publish_via_partition_root: false }",
    });
    await replication.caughtUp();
    const large = await replication.source.connect();
    const load = (from: number): string =>
      `insert into p1 select i, repeat(md5(i::text), 3) from generate_series(${from}, ${from} + 2999) i`;
    for (const sql of [
      "begin",
      "create table p1 (like p including all)",
      load(1_000_000),
      "alter table p attach partition p1 for values from (1000000) to (2000000)",
      load(1_100_000),
    ])
      await large.query(sql);
    await until(() => wasOffline(replication), { what: "the pipeline to be opened anew" });
    await replication.source.query("insert into p values (5, 'meanwhile')");
    await replication.caughtUp();
    await large.query("commit");
    await replication.expectEqual();
  });

  test("that alters a table is written as it says that the table is, and others as the table is for them", async () => {
    await using replication = await start({ targetSchema: "alter table t add column extra int" });
    const alter = ["alter table t add column extra int", "insert into t values (0, 'x', 0, 0)", rows(1)];
    const undone = await begin(replication, alter);
    await undone.query("rollback");
    await replication.source.query("insert into t values (-1, 'small')");
    await replication.caughtUp();
    const large = await begin(replication, alter);
    await large.query("commit");
    await replication.source.query("insert into t values (-2, 'behind', 1, 6)");
    await replication.expectEqual();
    expect(await rowsOnTarget(replication, "extra is not null")).toBe(2);
    expect(wasOffline(replication)).toBe(false);
  });

  test.for([
    [
      "the session that writes it",
      "target",
      "pid in (select pid from pg_locks where relation = 't'::regclass)",
    ],
    [
      "the session that writes the others",
      "target",
      "pid in (select pid from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock')",
    ],
    ["the source's stream", "source", "backend_type = 'walsender'"],
  ] as const)("comes again whole when %s is ended", async ([, side, which]) => {
    await using replication = await start();
    const large = await begin(replication, [rows(1)]);
    const ended = await replication[side].query(
      `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and ${which}`,
    );
    expect(ended.length).toBeGreaterThan(0);
    await until(() => wasOffline(replication), { what: "the pipeline to notice" });
    await large.query(rows(10_001));
    await large.query("commit");
    await replication.expectEqual();
    expect(await rowsOnTarget(replication)).toBe(6_000);
  });

  test("comes again whole after a stop, and is not waited for by sync", async () => {
    await using replication = await start();
    const { source, config } = replication;
    const large = await begin(replication, [rows(1)]);
    await replication.restart();
    await until(async () => (await open(replication)) === 1, { what: "it to come again" });
    await source.query("insert into t values (-1, 'meanwhile')");
    await replication.running.stop();
    expect(await open(replication)).toBe(0);
    const [target] = config.targets;
    if (target === undefined) throw new Error("no target");
    await syncTarget({ config, target, log: testLog(), signal: new AbortController().signal });
    expect(await rowsOnTarget(replication)).toBe(1);
    await replication.restart();
    await large.query("commit");
    await replication.expectEqual();
    expect(await rowsOnTarget(replication)).toBe(3_001);
  });

  test("is not read in bulk, however far behind the target is", async () => {
    await using replication = await start({ config: "gear: auto" });
    const { source, target } = replication;
    const large = await begin(replication, [rows(1)]);
    const lock = await target.connect();
    await lock.query("begin");
    // All commits wait.
    await lock.query("select from erserver.progress for update");
    for (let at = 1; at <= 45; at++)
      await source.query(
        `insert into t select ${at} * 100000 + i, repeat(md5(i::text), 6) from generate_series(1, 8000) i`,
      );
    // It is looked at every five seconds.
    await new Promise((resolve) => setTimeout(resolve, 7_000));
    await lock.query("commit");
    await replication.caughtUp();
    expect(await rowsOnTarget(replication, "id < 100000")).toBe(0);
    await large.query("commit");
    await replication.expectEqual();
    expect(wasOffline(replication)).toBe(false);
    expect(replication.running.statuses.map(({ state }) => state)).not.toContain("catching-up (bulk)");
  });

  test("waits for its commit where that is asked for", async () => {
    await using replication = await start({ config: "streaming: off" });
    const large = await replication.source.connect();
    for (const sql of ["begin", rows(1, 20_000)]) await large.query(sql);
    await replication.source.query("insert into t values (-1, 'meanwhile')");
    await replication.caughtUp();
    expect(await open(replication)).toBe(0);
    await large.query("commit");
    await replication.expectEqual();
  });
});
