import { describe, expect, it } from "vitest";
import { startOwnReplication } from "../support/own-servers.ts";
import { commandTag } from "../support/proxy.ts";

describe("a COMMIT whose acknowledgement is lost", () => {
  it("progress_saved_on_target_prevents_replay_after_lost_ack (T9)", async () => {
    await using replication = await startOwnReplication({
      // Without a key nothing but a count tells that a row was written twice.
      schema: "create table event (n int); create table account (id int primary key, balance int)",
      rows: "insert into account values (1, 0)",
    });
    const { source, target } = replication;
    await replication.caughtUp();
    for (let n = 1; n <= 5; n++) {
      const lost = target.network.next({
        from: "server",
        type: "C",
        match: (frame) => commandTag(frame) === "COMMIT",
        action: "cut-before",
      });
      await source.query(
        `begin; insert into event values (${n}); update account set balance = balance + 1; commit`,
      );
      await lost;
      await replication.caughtUp();
    }
    await replication.expectEqual();
    const [progress] = await target.query(
      "select transactions::int, conflicts::int, replays::int from erserver.progress",
    );
    expect(progress).toEqual({ transactions: 5, conflicts: 0, replays: 0 });
    expect(
      replication.running.statuses.filter(({ state }) => state === "offline").length,
    ).toBeGreaterThanOrEqual(5);
  });
});
