import { expect, test } from "vitest";
import { runPipeline, testConfig, caughtUp } from "../support/pipeline-context.ts";
import { freshDatabase, sharedCluster } from "../support/clusters.ts";
import { expectEqualTables } from "../support/compare.ts";
import { commandTag, type Proxy, startProxy } from "../support/proxy.ts";

/** Counts, from now on, what a target answers: how often it is ready inside of a transaction, and what it commits. */
function countAnswers(network: Proxy): { inTransaction: number; commits: number } {
  const counts = { inTransaction: 0, commits: 0 };
  const count = (type: string, counted: (frame: Buffer) => boolean, name: keyof typeof counts): void => {
    const match = (frame: Buffer): boolean => {
      if (counted(frame)) counts[name]++;
      return false;
    };
    void network.next({ from: "server", type, match, action: "drop" });
  };
  count("Z", (frame) => frame[5] === "T".charCodeAt(0), "inTransaction");
  count("C", (frame) => commandTag(frame) === "COMMIT", "commits");
  return counts;
}

test.for([
  ["groups as sets", "apply: { write: sets, workers: 1, group: { transactions: 20 } }", 1],
  ["groups row by row", "apply: { write: rows, workers: 1, group: { transactions: 20 } }", 1],
  ["groups in several sessions", "apply: { write: sets, workers: 4, group: { transactions: 20 } }", 1],
  ["single transactions", "apply: { mode: transaction, workers: 1 }", 0],
] as const)(
  "over a line of 50 ms a group costs at most two round trips, and a small one a single one: %s",
  { timeout: 120_000 },
  async ([, config, answersBeforeCommit]) => {
    await using source = await freshDatabase(sharedCluster("source"));
    await using target = await freshDatabase(sharedCluster("target"));
    for (const database of [source, target])
      await database.query("create table t (id int primary key, v text)");
    using network = await startProxy({ target: { port: sharedCluster("target").port } });
    const pipeline = testConfig(source.url, { [source.name]: network.url(target.url) }, config);
    await using running = runPipeline(pipeline, source.name);
    await caughtUp(source, running);
    await running.stop();
    await source.query(
      "do $$ begin for i in 1 .. 1000 loop insert into t values (i, 'a'); update t set v = v || i where id = i / 2; commit; end loop; end $$",
    );
    await using again = runPipeline(pipeline, source.name);
    network.delay(50);
    const counts = countAnswers(network);
    await caughtUp(source, again);
    network.delay(0);
    expect(counts.commits).toBeGreaterThanOrEqual(50);
    // One for each group before its COMMIT; some more are of the opening.
    expect(counts.inTransaction).toBeLessThanOrEqual(counts.commits * answersBeforeCommit + 20);
    await expectEqualTables(source.url, target.url);
  },
);

test(
  "to a target over a line of 50 ms groups follow each other, and no answer is waited for",
  { timeout: 120_000 },
  async () => {
    await using source = await freshDatabase(sharedCluster("source"));
    await using target = await freshDatabase(sharedCluster("target"));
    for (const database of [source, target])
      await database.query("create table t (id int primary key, v text)");
    using network = await startProxy({ target: { port: sharedCluster("target").port } });
    network.delay(50);
    await using running = runPipeline(
      testConfig(source.url, { [source.name]: network.url(target.url) }),
      source.name,
    );
    await caughtUp(source, running);
    const counts = countAnswers(network);
    const unanswered = countUnanswered(network);
    await source.query(
      "do $$ begin for i in 1 .. 400 loop insert into t values (i, 'a'); update t set v = v || i where id = i / 2; commit; perform pg_sleep(0.003); end loop; end $$",
    );
    await caughtUp(source, running);
    network.delay(0);
    expect(counts.inTransaction).toBe(0);
    expect(unanswered.most).toBeGreaterThan(4);
    await expectEqualTables(source.url, target.url);
  },
);

/** How many batches were on their way at once: Sync messages that no ReadyForQuery has answered. */
function countUnanswered(network: Proxy): { most: number } {
  const counts = { now: 0, most: 0 };
  const count = (from: "client" | "server", type: string, change: number): void => {
    const match = (): boolean => {
      counts.now += change;
      counts.most = Math.max(counts.most, counts.now);
      return false;
    };
    void network.next({ from, type, match, action: "drop" });
  };
  count("client", "S", 1);
  count("server", "Z", -1);
  return counts;
}
