import { describe, expect, it } from "vitest";
import { startOwnReplication, TIMEOUT_MS } from "../support/own-servers.ts";
import { ReplicatorHome, ReplicatorProcess } from "../support/replicator-process.ts";
import { until } from "../support/wait.ts";

describe("two replicators for one target", () => {
  it("the second waits with ERS-508, and takes over when the first is killed (S5, T9)", async () => {
    const opened: AsyncDisposable[] = [];
    let first: ReplicatorProcess | undefined;
    try {
      await using replication = await startOwnReplication({
        schema: "create table t (id int primary key)",
        rows: "insert into t select generate_series(1, 1000)",
        prepare: async (source, target) => {
          const home = await ReplicatorHome.create(
            `source: ${source.cluster.url()}\ntargets:\n  own: ${target.cluster.url()}\ntimeout: ${TIMEOUT_MS}ms\n`,
          );
          opened.push(home);
          first = ReplicatorProcess.start(home);
          opened.push(first);
          const copied = async (): Promise<boolean> => (await target.query("select from t")).length === 1000;
          await until(copied, { what: "the first replicator to copy the table" });
        },
      });
      const { source, target } = replication;
      const waiting = await replication.reaches(
        "the second to wait",
        ({ error }) => error?.code === "ERS-508",
      );
      expect(waiting).toMatchObject({ state: "offline", side: "target" });
      await source.query("insert into t values (1001)");
      await until(async () => (await target.query("select from t")).length === 1001, {
        what: "the first replicator to go on",
      });
      expect(replication.status.error?.code).toBe("ERS-508");

      await first?.kill();
      await source.query("insert into t values (1002)");
      await replication.expectEqual();
      const [progress] = await target.query(
        "select transactions::int, conflicts::int from erserver.progress",
      );
      expect(progress).toEqual({ transactions: 2, conflicts: 0 });
    } finally {
      for (const one of opened.toReversed()) await one[Symbol.asyncDispose]();
    }
  });
});
