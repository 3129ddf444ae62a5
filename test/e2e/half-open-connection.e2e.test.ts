import { describe, expect, it } from "vitest";
import { startOwnReplication, TIMEOUT_MS } from "../support/own-servers.ts";

/** Twice the timeout is what is promised; the rest is for a busy machine. */
const NOTICED_MS = 5 * TIMEOUT_MS;

describe("a connection that only we think is open", () => {
  it.each(["source", "target"] as const)(
    "%s: noticed while TCP still takes it for alive, told as offline, and replaced (S3-S5)",
    async (side) => {
      await using replication = await startOwnReplication({ schema: "create table t (id int primary key)" });
      const { source } = replication;
      const { network } = replication[side];
      await replication.caughtUp();
      await replication.reaches("streaming", ({ state }) => state === "streaming");

      // From here on nothing ends these connections but ourselves.
      network.halfOpen("client");
      // On the target's side silence means nothing until an answer is owed.
      await source.query("insert into t values (1)");
      const offline = await replication.reaches(
        "the silence to be noticed",
        ({ state }) => state === "offline",
        NOTICED_MS,
      );
      expect(offline).toMatchObject({
        side,
        error: { code: expect.stringMatching(/^ERS-20[14]$/) as string },
      });
      await replication.expectEqual();
    },
  );

  it("the source's side of a dead connection does not keep the slot from its successor", async () => {
    await using replication = await startOwnReplication({
      schema: "create table t (id int primary key)",
      // The source itself would hold on to the connection for an hour.
      sourceServer: { settings: { wal_sender_timeout: "1h" } },
    });
    const { source } = replication;
    await replication.caughtUp();
    source.network.halfOpen("server");
    await source.query("insert into t values (1)");
    await replication.expectEqual();
  });

  it("a dead session on the target does not keep the pipeline's lock from its successor", async () => {
    await using replication = await startOwnReplication({ schema: "create table t (id int primary key)" });
    const { source, target } = replication;
    await replication.caughtUp();
    target.network.halfOpen("server");
    await source.query("insert into t values (1)");
    await replication.expectEqual();
  });

  it("nothing passes either way: noticed as well, and the stream goes on when the network does (S3-S5)", async () => {
    await using replication = await startOwnReplication({ schema: "create table t (id int primary key)" });
    const { source, target } = replication;
    await replication.caughtUp();
    target.network.stall();
    await source.query("insert into t values (1)");
    const offline = await replication.reaches(
      "the target to be offline",
      ({ state }) => state === "offline",
      NOTICED_MS,
    );
    expect(offline.side).toBe("target");
    target.network.resume();
    await replication.expectEqual();
  });
});
