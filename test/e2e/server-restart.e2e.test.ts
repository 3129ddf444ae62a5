import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { readStatus, type TargetStatus } from "../../src/pipeline/read-status.ts";
import { type OwnReplication, startOwnReplication, TIMEOUT_MS } from "../support/own-servers.ts";
import { until } from "../support/wait.ts";

/** As another process reads it: the pipeline of this one is not asked. */
async function untilStatus(
  { config }: OwnReplication,
  what: string,
  condition: (status: TargetStatus) => boolean,
): Promise<TargetStatus> {
  return until(async () => (await readStatus(config)).find(condition), {
    what: `status to say ${what}`,
    timeout: 5 * TIMEOUT_MS,
  });
}

describe("a server that goes away and comes back", () => {
  it.each(["source", "target"] as const)(
    "%s down: offline since then, on that side, also for whoever asks for the status; back to streaming with no command given (S3-S5)",
    { timeout: 120_000 },
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
        const stopped = new Date();
        const offline = await replication.reaches(
          `the ${side} to be offline`,
          ({ state }) => state === "offline",
        );
        expect(offline).toMatchObject({
          side,
          error: { code: expect.stringMatching(/^ERS-20[146]$/) as string },
        });
        expect(offline.since.getTime()).toBeGreaterThanOrEqual(before.getTime());
        const told = await untilStatus(
          replication,
          "since when it is offline",
          ({ state, since }) => state === "offline" && since !== undefined,
        );
        expect(told.since?.getTime()).toBeGreaterThanOrEqual(before.getTime());
        expect(told.since?.getTime()).toBeLessThanOrEqual(stopped.getTime() + 2 * TIMEOUT_MS);
        // Several attempts fail meanwhile, and it stays one outage.
        await sleep(1_000);
        expect(replication.status).toMatchObject({ state: "offline", side, since: offline.since });
        const [status] = await readStatus(replication.config);
        expect(status).toMatchObject({
          state: "offline",
          side,
          since: told.since,
          error: { code: expect.stringMatching(/^ERS-20[146]$/) as string, side },
          // Whoever misses a target says on the source that it is there.
          ...(side === "target" ? { running: true } : {}),
        });
        if (side === "target") await source.query("update t set v = v + 1");
        await server.cluster.start();
        await source.query("update t set v = v + 1; insert into t values ((select max(id) + 1 from t), 0)");
        await replication.expectEqual();
        await replication.reaches(
          "streaming again",
          ({ state, error }) => state === "streaming" && error === undefined,
        );
        const again = await untilStatus(
          replication,
          "streaming since the outage",
          ({ state, since }) => state === "streaming" && since !== undefined && since > stopped,
        );
        expect(again).toMatchObject({ side: undefined, error: undefined, running: true });
      }
    },
  );
});
