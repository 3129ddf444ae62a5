import { describe, expect, it } from "vitest";
import { type FreshDatabase, freshDatabase, openSession, sharedCluster } from "../support/clusters.ts";
import { expectEqualTables } from "../support/compare.ts";
import { caughtUp, type RunningPipeline, runPipeline, testConfig } from "../support/pipeline-context.ts";
import { startProxy } from "../support/proxy.ts";
import { until } from "../support/wait.ts";

describe("three targets of one source", () => {
  it("are independent: one that is offline, or stands still, delays no other, and catches up by itself (S7, T10)", async () => {
    await using source = await freshDatabase(sharedCluster("source"));
    await using london = await freshDatabase(sharedCluster("target"));
    await using tokyo = await freshDatabase(sharedCluster("target"));
    await using lima = await freshDatabase(sharedCluster("target"));
    const targets: readonly FreshDatabase[] = [london, tokyo, lima];
    for (const database of [source, ...targets])
      await database.query("create table t (id int primary key, v int)");
    await source.query("insert into t select i, 0 from generate_series(1, 1000) i");
    using toTokyo = await startProxy({ target: { port: tokyo.server.port } });
    const config = testConfig(
      source.url,
      { [london.name]: london.url, [tokyo.name]: toTokyo.url(tokyo.url), [lima.name]: lima.url },
      "timeout: 2s",
    );
    await using toLondonPipeline = runPipeline(config, london.name);
    await using toTokyoPipeline = runPipeline(config, tokyo.name);
    await using toLimaPipeline = runPipeline(config, lima.name);
    const equal = async (target: FreshDatabase, running: RunningPipeline): Promise<void> => {
      await caughtUp(source, running);
      await expectEqualTables(source.url, target.url);
    };
    const all = [
      [london, toLondonPipeline],
      [tokyo, toTokyoPipeline],
      [lima, toLimaPipeline],
    ] as const;
    for (const [target, running] of all) await equal(target, running);

    toTokyo.refuse();
    toTokyo.cut();
    await until(() => toTokyoPipeline.pipeline.status.state === "offline", { what: "tokyo to be offline" });
    const blocker = await openSession(lima.url);
    try {
      await blocker.query("begin; lock table t in access exclusive mode");
      await source.query("update t set v = v + 1; insert into t values (2000, 0)");
      await equal(london, toLondonPipeline);
      expect(await tokyo.query("select from t where v = 1")).toEqual([]);
      expect((await blocker.query("select from t where v = 1")).rows).toEqual([]);
    } finally {
      await blocker.end();
    }
    await equal(lima, toLimaPipeline);
    expect(toTokyoPipeline.pipeline.status.state).toBe("offline");

    await toTokyo.accept();
    for (const [target, running] of all) await equal(target, running);
    for (const [, running] of all) await running.stop();
  });
});
