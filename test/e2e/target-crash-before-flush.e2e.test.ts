import { describe, expect, it } from "vitest";
import { OUR_OWN, startOwnReplication } from "../support/own-servers.ts";
import { until } from "../support/wait.ts";

/** A target that flushes a commit only when it has to: what it acknowledges can be lost for ten seconds. */
const LAZY = { settings: { synchronous_commit: "off", wal_writer_delay: "10000ms" } };

describe("a target that crashes before it has flushed what was committed", () => {
  it("gets again what it lost: the source is told a position only once it is durable (S5, T9)", async () => {
    await using replication = await startOwnReplication({
      schema: "create table t (id int primary key)",
      targetServer: LAZY,
      prepare: async (_source, target) => void (await target.query("checkpoint")),
    });
    const { source, target } = replication;
    await replication.caughtUp();
    for (let id = 1; id <= 5; id++) {
      await source.query(`insert into t values (${id})`);
      await until(async () => (await target.query(`select from t where id = ${id}`)).length === 1, {
        what: `row ${id} on the target`,
      });
    }
    await target.cluster.restart("immediate");
    await replication.expectEqual();
    expect(replication.status.state).not.toBe("stopped");
  });

  it("gets again what a replicator that died before it had committed there (S5, T9)", async () => {
    await using replication = await startOwnReplication({
      schema: "create table t (id int primary key)",
      targetServer: LAZY,
      prepare: async (_source, target) => void (await target.query("checkpoint")),
    });
    const { source, target } = replication;
    await replication.caughtUp();
    await source.query("insert into t values (1)");
    await until(async () => (await target.query("select from t")).length === 1, {
      what: "the row on the target",
    });
    await target.query(`select pg_terminate_backend(pid) from pg_stat_activity where ${OUR_OWN}`);
    await replication.reaches("the end of the session to be noticed", ({ state }) => state === "offline");
    await replication.reaches("the pipeline to follow again", ({ state }) => state !== "offline");
    // A status update at the least, with whatever position it takes for durable.
    const sent = async (): Promise<string> =>
      (await source.query<{ reply: string }>("select reply_time::text as reply from pg_stat_replication"))[0]
        ?.reply ?? "";
    const first = await until(sent, { what: "a status update" });
    await until(async () => (await sent()) > first, { what: "another status update" });
    await target.cluster.restart("immediate");
    await replication.expectEqual();
  });
});
