import { setTimeout as sleep } from "node:timers/promises";
import { expect, it } from "vitest";
import { readStatus } from "../../src/pipeline/read-status.ts";
import { startOwnReplication } from "../support/own-servers.ts";

it.each(["source", "target"] as const)(
  "%s down, and back until the next attempt: status never takes the replicator that waits for none, nor what was for what is",
  async (side) => {
    await using replication = await startOwnReplication({ schema: "create table t (id int primary key)" });
    await replication.caughtUp();
    await replication.reaches("streaming", ({ state }) => state === "streaming");
    const before = new Date();
    await replication[side].cluster.stop();
    await replication.reaches("offline", ({ state }) => state === "offline");

    const told = new Set<string>();
    const look = async (): Promise<void> => {
      const outage = replication.status.state === "offline";
      const [status] = await readStatus(replication.config);
      // Nothing has changed while we looked.
      if (!outage || replication.status.state !== "offline" || status === undefined) return;
      const { state, running, since } = status;
      const old = since !== undefined && since < before ? ", since before the outage" : "";
      told.add(`${state}${running ? "" : ", not running"}${old}`);
    };
    for (const end = Date.now() + 6_000; Date.now() < end; await sleep(100)) await look();
    expect([...told]).toEqual(["offline"]);
    await replication[side].cluster.start();
    while (replication.status.state === "offline") await look();
    for (const state of told) expect(["offline", "catching-up"]).toContain(state);
  },
);
