import { describe, it } from "vitest";
import { startOwnReplication } from "../support/own-servers.ts";
import { openSession } from "../support/clusters.ts";
import { until } from "../support/wait.ts";

describe("WAL that is none of ours", () => {
  it("an idle database holds none: the slot moves on while only another database is written", async () => {
    await using replication = await startOwnReplication({ schema: "create table t (id int primary key)" });
    const { source } = replication;
    await source.query("create database busy");
    const busy = await openSession(source.cluster.url("busy"));
    try {
      await replication.caughtUp();
      await busy.query("create table noise (body text)");
      await busy.query("insert into noise select repeat(md5(i::text), 32) from generate_series(1, 10000) i");
      const [written] = await source.query<{ lsn: string }>("select pg_current_wal_lsn()::text as lsn");
      const passed = `select from pg_replication_slots where confirmed_flush_lsn >= '${written?.lsn}'`;
      await until(async () => (await source.query(passed)).length === 1, {
        what: "the slot to pass what the other database wrote",
      });
    } finally {
      await busy.end();
    }
  });

  it("an idle table holds none: the slot moves on while only tables are written that are not replicated", async () => {
    await using replication = await startOwnReplication({
      schema: "create table t (id int primary key); create table noise (body text)",
      config: "tables: { exclude: [public.noise] }",
    });
    const { source } = replication;
    await replication.caughtUp();
    await source.query("insert into noise select repeat(md5(i::text), 32) from generate_series(1, 10000) i");
    const [written] = await source.query<{ lsn: string }>("select pg_current_wal_lsn()::text as lsn");
    const passed = `select from pg_replication_slots where confirmed_flush_lsn >= '${written?.lsn}'`;
    await until(async () => (await source.query(passed)).length === 1, {
      what: "the slot to pass what the table got",
    });
  });
});
