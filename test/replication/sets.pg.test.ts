import { expect, test } from "vitest";
import { expectEqualTables } from "../support/compare.ts";
import { startReplication, THERE } from "../support/pipeline-context.ts";
import { until } from "../support/wait.ts";

/** Of each table that a group of some thousand changes must not scan; more take long to copy. */
const MANY = Number(process.env["ERSERVER_TEST_MANY_ROWS"] ?? 50_000);

const SETS = "apply: { write: sets }";

test("net changes of a group find their rows by the key: no statement scans the target's table", async () => {
  await using replication = await startReplication({
    schema:
      "create table large (a int, b text, v int, primary key (a, b)); create table other (id int primary key, v text)",
    rows: `insert into large select i, 'b' || i, i from generate_series(1, ${MANY}) i; insert into other select i, 'x' from generate_series(1, ${MANY}) i`,
    config: SETS,
  });
  await until(() => replication.running.pipeline.status.state === THERE, {
    what: "the copy",
    timeout: 600_000,
  });
  const { source, target } = replication;
  await target.query("analyze");
  await replication.running.stop();
  const step = MANY / 1000;
  await source.query(
    `begin; update large set v = v + 1 where a % ${step} = 0; delete from large where a % ${step + 1} = 0; update large set b = b || 'x' where a % ${step + 3} = 0;
     update other set v = 'y' where id % ${step} = 0; delete from other where id % ${step + 1} = 0; insert into other select ${MANY} + i, 'new' from generate_series(1, 1000) i; commit`,
  );
  await replication.restart();
  await replication.caughtUp();
  await replication.running.stop();
  // A session tells what it did when it ends at the latest.
  const ours =
    "select from pg_stat_activity where datname = current_database() and application_name like 'erserver%' and application_name <> 'erserver test'";
  await until(async () => (await target.query(ours)).length === 0, { what: "our sessions to be gone" });
  // Before the copy the tables were scanned, and had no rows.
  expect(
    await target.query(
      "select relname, seq_tup_read from pg_stat_user_tables where relname in ('large', 'other') order by 1",
    ),
  ).toEqual([
    { relname: "large", seq_tup_read: "0" },
    { relname: "other", seq_tup_read: "0" },
  ]);
  await expectEqualTables(source.url, target.url);
  expect(await target.query("select replays, conflicts from erserver.progress")).toEqual([
    { replays: "0", conflicts: "0" },
  ]);
}, 1_200_000);

test("what depends on the order of rows is written in the source's order, and counted", async () => {
  await using replication = await startReplication({
    schema: "create table t (id int primary key, place int unique deferrable)",
    targetSchema: "alter table t drop constraint t_place_key; create unique index on t (place)",
    rows: "insert into t values (1, 1), (2, 2), (3, 3)",
    config: SETS,
  });
  await replication.caughtUp();
  const { source, target } = replication;
  // Free for a moment in this order alone: the last state of row 1 is in the way of row 2's.
  await source.query(
    "begin; update t set place = 10 where id = 2; update t set place = 2 where id = 1; update t set place = 1 where id = 2; commit",
  );
  await replication.caughtUp();
  await replication.expectEqual();
  expect(await target.query("select replays, conflicts from erserver.progress")).toEqual([
    { replays: "1", conflicts: "0" },
  ]);
});

test("a row that is not as the source has it is a conflict also in a set", async () => {
  await using replication = await startReplication({
    schema: "create table t (id int primary key, v int)",
    rows: "insert into t select i, i from generate_series(1, 100) i",
    config: SETS,
  });
  await replication.caughtUp();
  const { source, target } = replication;
  await target.query("delete from t where id in (7, 8); insert into t values (101, 0)");
  await source.query(
    "begin; update t set v = -v where id < 8; delete from t where id between 8 and 20; insert into t select i, i from generate_series(101, 200) i; commit",
  );
  await replication.caughtUp();
  await replication.expectEqual();
  expect(await target.query("select kind, key from erserver.conflict order by kind")).toEqual([
    { kind: "delete_missing", key: { id: "8" } },
    { kind: "insert_exists", key: { id: "101" } },
    { kind: "update_missing", key: { id: "7" } },
  ]);
});

test("arrays, domains, character and bit types travel in sets as they are, whatever `unnest` makes of them", async () => {
  await using replication = await startReplication({
    schema: `create domain code as char(4); create type mood as enum ('a "b"', 'c\\d'); create table t (id char(3) primary key, a int[], b bit(5), v varbit, c code, m mood, n numeric(6, 2), x text, y box);
      create table keyed (b bit(3), c code, primary key (b, c))`,
    rows: `insert into t select i, array[[i, i], [2, 3]], i::bit(5), i::bit(5), i, 'a "b"', i, E'\\\\ \\t\\n"{}', '(1,1),(0,0)' from generate_series(1, 60) i;
      insert into keyed select i::bit(3), i from generate_series(0, 7) i`,
    config: SETS,
  });
  await replication.caughtUp();
  const { source, target } = replication;
  await source.query(
    `begin; update t set b = ~b, v = v || B'1', c = 'x', m = 'c\\d', n = n + 0.5, x = x || E'\\r\\\\N', y = '(2,2),(1,1)' where id < '4';
     update t set a = a || array[[9, null]] where id > '3'; insert into t (id, x) values ('n', null), ('o', 'NULL'), ('p', ''); delete from keyed where b < B'100'; commit`,
  );
  await replication.caughtUp();
  await replication.expectEqual();
  expect(await target.query("select replays from erserver.progress")).toEqual([{ replays: "0" }]);
});

test("composites, of which `unnest` would make columns, are written row by row in a set", async () => {
  await using replication = await startReplication({
    schema:
      "create type pair as (a int, b text); create domain couple as pair; create table t (id int primary key, p pair, c couple, n int)",
    config: SETS,
  });
  await replication.caughtUp();
  await replication.source.query(
    `insert into t select i, (i, 'x, "y')::pair, (null, '')::couple, i from generate_series(1, 60) i; update t set p = (id, null)::pair, n = n + 1 where id > 30; delete from t where id < 10`,
  );
  await replication.caughtUp();
  await replication.expectEqual();
  expect(await replication.target.query("select replays from erserver.progress")).toEqual([{ replays: "0" }]);
});
