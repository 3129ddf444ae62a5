import { describe, expect, it } from "vitest";
import { openSession } from "../support/clusters.ts";
import { startOwnReplication } from "../support/own-servers.ts";
import { until } from "../support/wait.ts";

describe("a target that stands still", () => {
  it("does not cost the connection to the source: status updates keep flowing for many times wal_sender_timeout", async () => {
    await using replication = await startOwnReplication({
      schema: "create table t (id int primary key, body text)",
      sourceServer: { settings: { wal_sender_timeout: "2s" } },
    });
    const { source, target } = replication;
    await replication.caughtUp();
    const walsender = async (): Promise<unknown> =>
      (await source.query("select pid from pg_stat_replication"))[0]?.["pid"];
    const pid = await walsender();
    const blocker = await openSession(target.cluster.url());
    try {
      await blocker.query("begin; lock table t in access exclusive mode");
      // More than what is held in memory: we stop to read.
      await source.query("insert into t select i, repeat(md5(i::text), 32) from generate_series(1, 40000) i");
      await source.query(
        "insert into t select i, repeat(md5(i::text), 32) from generate_series(40001, 80000) i",
      );
      const waiting = "select from pg_locks where not granted and relation = 't'::regclass";
      await until(async () => (await target.query(waiting)).length > 0, {
        what: "the pipeline to wait for the lock",
      });
      const replies = new Set<unknown>();
      const three = async (): Promise<boolean> => {
        replies.add(
          (
            await source.query(
              "select date_trunc('second', reply_time)::text as reply from pg_stat_replication",
            )
          )[0]?.["reply"],
        );
        return replies.size > 8;
      };
      await until(three, { what: "status updates in nine different seconds" });
      expect(await walsender()).toBe(pid);
      expect((await target.query(waiting)).length).toBeGreaterThan(0);
      await blocker.query("rollback");
    } finally {
      await blocker.end();
    }
    await replication.expectEqual();
    expect(await walsender()).toBe(pid);
    expect(replication.running.statuses.filter(({ state }) => state === "offline")).toEqual([]);
  });
});
