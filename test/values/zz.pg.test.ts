import { it } from "vitest";
import { startReplication } from "../../test/support/pipeline-context.ts";
it("times", async () => {
  const t0 = performance.now();
  const mark = (s: string) => console.log(s, Math.round(performance.now() - t0));
  await using replication = await startReplication({ schema: "create table account (id int primary key, owner text)", rows: "insert into account select i, 'x' from generate_series(1,10) i" });
  mark("started");
  await replication.caughtUp(); mark("caughtUp 1");
  await replication.caughtUp(); mark("caughtUp 2");
  await replication.source.query("insert into account values (1001, 'late')"); mark("insert");
  await replication.caughtUp(); mark("caughtUp 3");
  await replication.expectEqual(); mark("equal");
  await replication.running.stop(); mark("stop");
});
