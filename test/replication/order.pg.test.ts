import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { formatLsn, type Lsn } from "../../src/change/lsn.ts";
import { freshDatabase, sharedCluster } from "../support/clusters.ts";
import { expectEqualTables } from "../support/compare.ts";
import { caughtUp, runPipeline, startReplication, testConfig, THERE } from "../support/pipeline-context.ts";
import { startProxy } from "../support/proxy.ts";
import { until } from "../support/wait.ts";

const WRITERS = 8;

describe("whole transactions in commit order", () => {
  test("a reader of the target sees each transaction of concurrent writers whole, and only states that the source had, in its order (S1, S2)", async () => {
    await using replication = await startReplication({
      schema: `create table account (id int primary key, balance int not null); create table total (id int primary key, sum int not null);
        create table history (number int primary key, account int, amount int); create table counter (id int primary key, number int)`,
      rows: `insert into account select i, 100 from generate_series(1, 16) i; insert into total values (1, 0); insert into counter values (1, 0)`,
      config: "apply: { group: { transactions: 3 } }",
    });
    await replication.caughtUp();
    const { source, target } = replication;
    let writing = true;
    const reader = (async (): Promise<number> => {
      const session = await target.connect();
      let last = 0;
      let states = 0;
      while (writing) {
        // Money moves between accounts and the total; the history has every number up to the counter; the counter never goes back.
        const { rows } = await session.query<{
          balance: number;
          money: number;
          rows: number;
          last: number;
          counter: number;
        }>(
          `select (select sum(balance)::int from account) as balance, (select sum from total) as money, (select count(*)::int from history) as rows,
             (select coalesce(max(number), 0) from history) as last, (select number from counter) as counter`,
        );
        const state = rows[0]!;
        expect(state).toMatchObject({
          balance: 1600 - state.money,
          rows: state.counter,
          last: state.counter,
        });
        expect(state.counter).toBeGreaterThanOrEqual(last);
        if (state.counter > last) states++;
        last = state.counter;
      }
      return states;
    })();
    const writer = async (seed: number): Promise<void> => {
      const session = await source.connect();
      await session.query("set synchronous_commit = off");
      for (let i = 0; i < 60; i++) {
        const account = 1 + ((seed * 7 + i * 3) % 16);
        const amount = (i % 5) + 1;
        await session.query(`begin; update account set balance = balance - ${amount} where id = ${account}; update total set sum = sum + ${amount};
          savepoint s; insert into history values (-${seed}, 0, 0); update counter set number = -1; rollback to s;
          with n as (update counter set number = number + 1 returning number) insert into history select number, ${account}, ${amount} from n;
          ${i % 6 === 5 ? "rollback" : "commit"}`);
      }
    };
    await Promise.all(Array.from({ length: WRITERS }, (_, seed) => writer(seed + 1)));
    await replication.caughtUp();
    writing = false;
    expect(await reader).toBeGreaterThan(1);
    await replication.expectEqual();
  });

  test("two transactions whose BEGIN and COMMIT orders differ are applied in commit order; a long one spans several groups of others, larger than a group itself, and comes late and whole (S1, S2, T7)", async () => {
    await using replication = await startReplication({
      schema:
        "create table slip (id int primary key, v text, at int); create table log (number serial primary key, who text)",
      rows: "insert into slip select i, 'start', 0 from generate_series(1, 10) i",
      config: "apply: { group: { transactions: 2, bytes: 64kB } }",
    });
    await replication.caughtUp();
    const { source, target } = replication;
    const [long, first, second] = await Promise.all([source.connect(), source.connect(), source.connect()]);
    await long.query(
      "begin; insert into log (who) values ('long'); update slip set v = 'long' where id = 10; insert into slip select i, 'bulk of the long one', 0 from generate_series(1001, 6000) i; savepoint a; insert into slip values (100, 'undone', 0)",
    );
    await first.query("begin; insert into log (who) values ('first')");
    await second.query(
      "begin; insert into log (who) values ('second'); update slip set v = 'second', at = at + 1 where id = 1; commit",
    );
    await first.query("update slip set v = 'first', at = at * 10 where id = 1; commit");
    await replication.caughtUp();
    expect(await target.query("select v, at from slip where id = 1")).toEqual([{ v: "first", at: 10 }]);
    expect(await target.query("select who from log order by number")).toEqual([
      { who: "first" },
      { who: "second" },
    ]);
    const seen = async (): Promise<{ transactions: number; long: number; bulk: number }> => {
      const [row] = await target.query<{ transactions: number; long: number; bulk: number }>(
        `select transactions::int, (select count(*)::int from log where who like 'long%') as long,
           (select count(*)::int from slip where id > 1000) as bulk from erserver.progress`,
      );
      return row!;
    };
    let { transactions } = await seen();
    for (let round = 0; round < 3; round++) {
      for (let i = 0; i < 5; i++) await source.query("update slip set at = at + 1 where id < 10");
      await replication.caughtUp();
      transactions += 5;
      expect(await seen()).toEqual({ transactions, long: 0, bulk: 0 });
      await long.query(
        "rollback to a; insert into log (who) values ('long again'); savepoint b; delete from slip where id = 9; rollback to b",
      );
    }
    // What the long one wrote before a restart of ours comes whole after it.
    await replication.restart();
    await replication.caughtUp();
    expect(await seen()).toEqual({ transactions, long: 0, bulk: 0 });
    await long.query("update slip set v = 'end of long' where id = 9; commit");
    const late = await until(
      async () => {
        const now = await seen();
        return now.bulk > 0 && now;
      },
      { what: "the long transaction", interval: 0 },
    );
    expect(late).toEqual({ transactions: transactions + 1, long: 2, bulk: 5000 });
    await replication.expectEqual();
    await source.query(
      "begin; insert into slip values (200, 'no', 0); truncate log; rollback; begin; savepoint x; delete from slip; rollback to x; release x; update slip set at = 0; commit",
    );
    await replication.expectEqual();
  });

  test(
    "50,000 small transactions of 8 clients arrive while they are written",
    { timeout: 120_000 },
    async () => {
      await using replication = await startReplication({
        schema:
          "create table account (id int primary key, balance int not null default 0, filler text); create table history (client int, number int, account int, primary key (client, number))",
        rows: "insert into account select i, 0, repeat('x', 80) from generate_series(1, 1000) i",
      });
      await replication.caughtUp();
      const { source, target } = replication;
      const each = 50_000 / WRITERS;
      const write = async (client: number): Promise<void> => {
        const session = await source.connect();
        await session.query("set synchronous_commit = off");
        for (let from = 0; from < each; from += 250) {
          const statements = Array.from({ length: Math.min(250, each - from) }, (_, i) => {
            const number = from + i;
            const account = 1 + ((number * 31 + client * 7) % 1000);
            return number % 3 === 0
              ? `begin; insert into history values (${client}, ${number}, ${account}); update account set balance = balance + 1 where id = ${account}; commit`
              : `begin; update account set balance = balance + ${number % 7} where id = ${account}; commit`;
          });
          await session.query(statements.join(";"));
        }
      };
      await Promise.all(Array.from({ length: WRITERS }, (_, client) => write(client)));
      await replication.expectEqual();
      const [progress] = await target.query("select transactions, conflicts, replays from erserver.progress");
      expect(progress).toEqual({ transactions: "50000", conflicts: "0", replays: "0" });
      await until(() => replication.running.pipeline.status.state === THERE, { what: `the state ${THERE}` });
    },
  );
});

test("a source that falls silent in the middle of a transaction: none of it is seen until all is there (S1)", async () => {
  await using source = await freshDatabase(sharedCluster("source"));
  await using target = await freshDatabase(sharedCluster("target"));
  for (const database of [source, target]) await database.query("create table t (id int, body text)");
  using network = await startProxy({ target: { port: sharedCluster("source").port } });
  const config = testConfig(
    network.url(source.url),
    { [source.name]: target.url },
    "apply: { group: { bytes: 64kB } }",
  );
  await using running = runPipeline(config, source.name);
  await caughtUp(source, running);
  // Positions without changes: the second is not recorded at once.
  for (let round = 0; round < 2; round++) await caughtUp(source, running);
  await expect(target.query("select lsn::text from erserver.progress")).resolves.not.toEqual([
    { lsn: formatLsn(running.pipeline.status.appliedLsn as Lsn) },
  ]);
  const stalled = network.next({
    from: "server",
    type: "d",
    match: (frame) => frame.includes("here it stops"),
    action: "stall",
  });
  await source.query(
    "insert into t select i, case i when 4000 then 'here it stops' else repeat('x', 200) end from generate_series(1, 8000) i",
  );
  await stalled;
  // Longer than it takes until a position is recorded while nothing happens.
  await sleep(6_500);
  expect(await target.query("select 1 from t limit 1")).toEqual([]);
  network.resume();
  await caughtUp(source, running);
  await expectEqualTables(source.url, target.url);
  expect(running.statuses.map(({ state }) => state)).not.toContain("offline");
});
