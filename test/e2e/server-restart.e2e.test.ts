import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { startOwnReplication } from "../support/own-servers.ts";

describe("a server that goes away and comes back", () => {
  it.each(["source", "target"] as const)(
    "%s down: offline since then, on that side; back to streaming with no command given (S3-S5)",
    async (side) => {
      await using replication = await startOwnReplication({
        schema: "create table t (id int primary key, v int)",
      });
      const { source } = replication;
      const server = replication[side];
      await source.query("insert into t select i, 0 from generate_series(1, 1000) i");
      await replication.caughtUp();
      await replication.reaches("streaming", ({ state }) => state === "streaming");

      for (const mode of ["fast", "immediate"] as const) {
        const before = new Date();
        await server.cluster.stop(mode);
        const offline = await replication.reaches(
          `the ${side} to be offline`,
          ({ state }) => state === "offline",
        );
        expect(offline).toMatchObject({
          side,
          error: { code: expect.stringMatching(/^ERS-20[146]$/) as string },
        });
        expect(offline.since.getTime()).toBeGreaterThanOrEqual(before.getTime());
        // Several attempts fail meanwhile, and it stays one outage.
        await sleep(1_000);
        expect(replication.status).toMatchObject({ state: "offline", side, since: offline.since });
        if (side === "target") await source.query("update t set v = v + 1");
        await server.cluster.start();
        await source.query("update t set v = v + 1; insert into t values ((select max(id) + 1 from t), 0)");
        await replication.expectEqual();
        await replication.reaches(
          "streaming again",
          ({ state, error }) => state === "streaming" && error === undefined,
        );
      }
    },
  );
});
