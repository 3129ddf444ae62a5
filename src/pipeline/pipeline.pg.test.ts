import { describe, expect, it } from "vitest";
import { startReplication, THERE } from "../../test/support/pipeline-context.ts";

describe("a pipeline", () => {
  it("copies what is there and follows inserts, updates and deletes (S6, S25, T4)", async () => {
    await using replication = await startReplication({
      schema: "create table account (id int primary key, owner text, balance numeric(12, 2))",
      rows: "insert into account select i, 'owner ' || i, i * 1.25 from generate_series(1, 1000) i",
    });
    const { source } = replication;
    await source.query("insert into account values (1001, 'late', 1)");
    await replication.expectEqual();
    await source.query(
      "update account set balance = balance + 1 where id % 3 = 0; delete from account where id % 7 = 0",
    );
    await source.query("insert into account values (2000, null, null)");
    await replication.expectEqual();
    expect(replication.running.pipeline.status.state).toBe(THERE);
  });

  it("goes on after a restart where it was", async () => {
    await using replication = await startReplication({
      schema: "create table t (id int primary key, v int)",
    });
    await replication.caughtUp();
    await replication.source.query("insert into t select i, 0 from generate_series(1, 100) i");
    await replication.expectEqual();
    await replication.running.stop();
    await replication.source.query("update t set v = v + 1; insert into t values (101, 0)");
    await replication.restart();
    await replication.expectEqual();
    const [progress] = await replication.target.query<{ transactions: string; rows: string }>(
      "select transactions, rows from erserver.progress",
    );
    expect(progress).toMatchObject({ rows: "201" });
  });

  it("stops when its publication was dropped while it follows: what the source leaves out is never passed over", async () => {
    await using replication = await startReplication({ schema: "create table t (id int primary key)" });
    await replication.caughtUp();
    const { source, target, running } = replication;
    await source.query(`drop publication erserver_${source.name}`);
    await source.query("insert into t values (1)");
    await expect(running.finished).rejects.toMatchObject({ code: "ERS-505" });
    expect(running.pipeline.status.state).toBe("stopped");
    await replication.restart();
    await expect(replication.running.finished).rejects.toMatchObject({ code: "ERS-505" });
    expect(await target.query("select * from t")).toEqual([]);
  });
});
