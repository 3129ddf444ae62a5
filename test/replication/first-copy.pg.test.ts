import { expect, test } from "vitest";
import { freshDatabase, sharedCluster } from "../support/clusters.ts";
import { expectEqualTables } from "../support/compare.ts";
import { caughtUp, runPipeline, testConfig } from "../support/pipeline-context.ts";
import { until } from "../support/wait.ts";

test("a table that is rewritten or truncated between snapshot and copy is copied again: the snapshot would show it empty", async () => {
  await using source = await freshDatabase(sharedCluster("source"));
  await using target = await freshDatabase(sharedCluster("target"));
  for (const database of [source, target])
    await database.query(
      "create table big (id int primary key, v text); create table rewritten (id int primary key, v int); create table truncated (id int primary key)",
    );
  await source.query(
    "insert into big select i, repeat('x', 100) from generate_series(1, 2000) i; insert into rewritten select i, i from generate_series(1, 100) i; insert into truncated select i from generate_series(1, 10) i",
  );
  // The largest table comes first and the only job waits with it, in the snapshot.
  const blocker = await target.connect();
  await blocker.query("begin; lock table big in share mode");
  const config = testConfig(source.url, { [source.name]: target.url }, "copy: { jobs: 1 }");
  await using running = runPipeline(config, source.name);
  await until(
    async () =>
      (
        await target.query(
          "select from pg_locks where relation = 'big'::regclass and not granted and mode = 'RowExclusiveLock'",
        )
      ).length > 0,
    { what: "the copy to wait" },
  );
  await source.query(
    "alter table rewritten alter v type int using v * 2; delete from rewritten where id = 7",
  );
  await source.query(
    "update truncated set id = 100 where id = 1; truncate truncated; insert into truncated values (1)",
  );
  await blocker.query("commit");
  await caughtUp(source, running);
  await expectEqualTables(source.url, target.url);
  expect(await target.query("select conflicts, replays from erserver.progress")).toEqual([
    { conflicts: "0", replays: "0" },
  ]);
});

test("several tables are copied at once, as many as `copy.jobs` says, all from one snapshot", async () => {
  await using source = await freshDatabase(sharedCluster("source"));
  await using target = await freshDatabase(sharedCluster("target"));
  const tables = ["first", "second", "third"];
  for (const database of [source, target])
    await database.query(
      tables.map((table) => `create table ${table} (id int primary key, v int)`).join(";"),
    );
  const everywhere = (sql: string): string =>
    `begin; ${tables.map((table) => sql.replaceAll("%", table)).join("; ")}; commit`;
  await source.query(everywhere("insert into % select i, 0 from generate_series(1, 100) i"));
  const blocker = await target.connect();
  await blocker.query(`begin; lock table ${tables.join(", ")} in share mode`);
  await using running = runPipeline(
    testConfig(source.url, { [source.name]: target.url }, "copy: { jobs: 2 }"),
    source.name,
  );
  const waiting = (): Promise<unknown[]> =>
    target.query(
      `select distinct pid, relation from pg_locks where not granted and mode = 'RowExclusiveLock' and relation in (${tables.map((table) => `'${table}'::regclass`).join(", ")})`,
    );
  await until(async () => (await waiting()).length >= 2, { what: "two copies to wait at once" });
  // Later than the snapshot: the third table is copied afterwards, and without it.
  await source.query(everywhere("update % set v = 1 where id <= 50; delete from % where id = 100"));
  expect(await waiting()).toHaveLength(2);
  expect(running.pipeline.status).toMatchObject({
    state: "copying",
    copy: { tablesDone: 0, tablesTotal: 3 },
  });
  await blocker.query("commit");
  await caughtUp(source, running);
  await expectEqualTables(source.url, target.url);
  expect(
    await target.query(
      "select distinct rows_copied::int, copy_lsn = min(copy_lsn) over () as same from erserver.table_state",
    ),
  ).toEqual([{ rows_copied: 100, same: true }]);
  expect(await target.query("select conflicts, replays from erserver.progress")).toEqual([
    { conflicts: "0", replays: "0" },
  ]);
});
