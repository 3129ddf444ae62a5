import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import {
  type OwnReplication,
  type OwnReplicationOptions,
  startOwnReplication,
} from "../support/own-servers.ts";
import { until } from "../support/wait.ts";

const run = promisify(execFile);

const SLOT = "erserver_own";

/** A pipeline that has replicated rows 1 to 3 and was stopped. */
async function stoppedReplication(options: Partial<OwnReplicationOptions> = {}): Promise<OwnReplication> {
  const replication = await startOwnReplication({
    schema: "create table t (id int primary key)",
    ...options,
  });
  await replication.source.query("insert into t values (1), (2), (3)");
  await replication.expectEqual();
  await replication.running.stop();
  return replication;
}

/** Starts it again: it has to stop with this code, which is also what the target keeps for whoever asks, and to change nothing. */
async function expectStop(replication: OwnReplication, code: string, rows: readonly number[]): Promise<void> {
  const again = replication.another();
  await expect(again.finished).rejects.toMatchObject({
    code,
    remedy: expect.stringContaining("erserver") as string,
  });
  expect(again.pipeline.status).toMatchObject({ state: "stopped", error: { code } });
  const onTarget = await replication.target.query<{ id: number }>("select id from t order by id");
  expect(onTarget.map(({ id }) => id)).toEqual(rows);
}

describe("changes that cannot be had any more stop the pipeline instead of being left out", () => {
  it("the slot was dropped: ERS-502", async () => {
    await using replication = await stoppedReplication();
    await replication.source.query(`select pg_drop_replication_slot('${SLOT}')`);
    await replication.source.query("insert into t values (4)");
    await expectStop(replication, "ERS-502", [1, 2, 3]);
    expect(await replication.source.query("select from pg_replication_slots")).toEqual([]);
  });

  it("the source has removed WAL that the slot needed: ERS-503", async () => {
    await using replication = await stoppedReplication({
      sourceServer: {
        settings: { max_slot_wal_keep_size: "1MB", max_wal_size: "32MB", min_wal_size: "32MB" },
      },
    });
    const { source } = replication;
    await source.query("create table noise (body text)");
    const lost = async (): Promise<boolean> => {
      await source.query(
        "insert into noise select repeat(md5(i::text), 32) from generate_series(1, 20000) i",
      );
      await source.query("checkpoint");
      return (await source.query("select from pg_replication_slots where wal_status = 'lost'")).length === 1;
    };
    await until(lost, { what: "the slot to be lost" });
    await source.query("drop table noise");
    await expectStop(replication, "ERS-503", [1, 2, 3]);
  });

  it("the slot was moved ahead: ERS-504", async () => {
    await using replication = await stoppedReplication();
    await replication.source.query("insert into t values (4)");
    await replication.source.query(`select pg_replication_slot_advance('${SLOT}', pg_current_wal_lsn())`);
    await expectStop(replication, "ERS-504", [1, 2, 3]);
  });

  it("the target was restored from an older backup: ERS-504", async () => {
    await using replication = await stoppedReplication();
    const { cluster } = replication.target;
    await cluster.stop();
    await run("cp", ["-a", cluster.dataDirectory, `${cluster.dataDirectory}.backup`]);
    await cluster.start();
    const again = replication.another();
    await replication.source.query("insert into t values (4)");
    await replication.caughtUp(again);
    await again.stop();

    await cluster.stop();
    await run("rm", ["-r", cluster.dataDirectory]);
    await run("mv", [`${cluster.dataDirectory}.backup`, cluster.dataDirectory]);
    await cluster.start();
    await expectStop(replication, "ERS-504", [1, 2, 3]);
  });

  it("the publication was dropped while it was replicating: ERS-505", async () => {
    await using replication = await startOwnReplication({ schema: "create table t (id int primary key)" });
    const { source } = replication;
    await replication.caughtUp();
    await source.query(`drop publication ${SLOT}`);
    await source.query("insert into t values (1)");
    await expect(replication.running.finished).rejects.toMatchObject({ code: "ERS-505" });
    await expectStop(replication, "ERS-505", []);
  });
});
