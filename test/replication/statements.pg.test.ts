import { describe, expect, test } from "vitest";
import { testMajor } from "../support/clusters.ts";
import { startReplication } from "../support/pipeline-context.ts";

/** TRUNCATE is published from 11 on. */
const truncates = testMajor("source") >= 11;

const ACCOUNTS = `
  create table account (id int primary key, owner text, balance numeric(12, 2) not null default 0);
  create table entry (account int, number int, amount numeric(12, 2), note text, primary key (account, number));
  create table "Key Only" (k text primary key);`;

describe("statements", () => {
  test("INSERT, UPDATE and DELETE arrive, alone and many in a transaction, one by one and as a backlog (S6)", async () => {
    await using replication = await startReplication({
      schema: ACCOUNTS,
      rows: "insert into account select i, 'o' || i, i from generate_series(1, 50) i",
    });
    const { source } = replication;
    const work = async (from: number): Promise<void> => {
      await source.query(
        `insert into account select i, 'new', 0 from generate_series(${from}, ${from + 99}) i`,
      );
      await source.query(
        `insert into entry select i, n, i * n, null from generate_series(${from}, ${from + 9}) i, generate_series(1, 5) n`,
      );
      await source.query(`update account set balance = balance + 0.01, owner = null where id % 2 = 0`);
      await source.query(`update entry set note = 'ü\n\\N\t''' || number where number > 2`);
      await source.query(`delete from account where id % 5 = 0`);
      await source.query(`begin; insert into account values (${from + 5000}, 'x', 1); update account set balance = 2 where id = ${from + 5000};
        delete from account where id = ${from + 5000}; insert into account values (${from + 5000}, 'y', 3); update entry set amount = 0 where number = 1; commit`);
    };
    await work(1000);
    await replication.expectEqual();
    await replication.running.stop();
    await work(2000);
    await work(3000);
    await replication.restart();
    await replication.expectEqual();
    // Nothing of it needed a second look.
    const [progress] = await replication.target.query("select replays, conflicts from erserver.progress");
    expect(progress).toEqual({ replays: "0", conflicts: "0" });
  });

  test("keys are changed, swapped and used again, and a table whose only column is the key follows (T2, T15)", async () => {
    await using replication = await startReplication({
      schema: `${ACCOUNTS} create table swapped (id int, label text, unique (id) deferrable initially deferred, key int primary key);
        create table ranked (place int primary key deferrable, name text unique); alter table ranked replica identity full`,
      rows: `insert into account select i, 'o' || i, i from generate_series(1, 20) i; insert into "Key Only" values ('a'), ('b'), ('c');
        insert into swapped values (1, 'a', 1), (2, 'b', 2), (3, 'c', 3); insert into ranked values (1, 'x'), (2, 'y'), (3, 'z')`,
    });
    const { source } = replication;
    const work = async (): Promise<void> => {
      await source.query(
        "begin; update account set id = -1 where id = 1; update account set id = 1 where id = 2; update account set id = 2 where id = -1; commit",
      );
      await source.query(
        "begin; delete from account where id = 3; insert into account values (3, 'again', 33); commit",
      );
      await source.query(
        "update account set id = 103 where id = 4; insert into account values (4, 'the second four', 0); update account set id = 104 where id = 4; update account set id = 4 where id = 103; update account set id = 103 where id = 104",
      );
      await source.query("delete from account where id = 103");
      await source.query(
        "update account set id = id + 1000 where id > 10; update account set id = id - 1000 where id > 1000",
      );
      await source.query(
        `update "Key Only" set k = k || '!'; update "Key Only" set k = k; delete from "Key Only" where k like 'b%'; insert into "Key Only" values ('b'), ('')`,
      );
      await source.query("update swapped set id = case id when 1 then 2 when 2 then 1 else id end");
      await source.query("begin; set constraints all deferred; update ranked set place = 4 - place; commit");
      await source.query(
        "begin; set constraints all deferred; update ranked set place = place % 3 + 1; commit",
      );
    };
    await work();
    await replication.expectEqual();
    await replication.running.stop();
    await source.query(`delete from "Key Only"; insert into "Key Only" values ('b'), ('a')`);
    await work();
    await replication.restart();
    await replication.expectEqual();
    const [progress] = await replication.target.query("select conflicts from erserver.progress");
    expect(progress).toEqual({ conflicts: "0" });
  });

  test("an UPDATE by one of several equal surnames changes exactly the row that it changed (T1)", async () => {
    await using replication = await startReplication({
      schema:
        "create table customer (cust_id int primary key, lastname text, firstname text); create index on customer (lastname)",
      rows: "insert into customer select i, (array['Gould', 'Brown', 'Gould'])[1 + i % 3], 'f' || i from generate_series(1, 31) i",
    });
    await replication.source.query(
      "update customer set lastname = 'Nathaniel' where cust_id = 10; delete from customer where cust_id = 11; update customer set lastname = 'Gould' where cust_id = 12",
    );
    await replication.expectEqual();
    const rows = await replication.target.query("select lastname from customer where cust_id = 10");
    expect(rows).toEqual([{ lastname: "Nathaniel" }]);
  });

  test.skipIf(!truncates)(
    "TRUNCATE arrives: several tables, CASCADE, RESTART IDENTITY, between other changes (S6, T14)",
    async () => {
      await using replication = await startReplication({
        schema: `create table parent (id int generated by default as identity primary key, v text);
        create table child (id serial primary key, parent int references parent);
        create table grandchild (id int primary key, child int references child);
        create table alone (id int primary key, v text); create table other (id int primary key); create table nokey (v text)`,
        rows: `insert into parent (v) select 'p' from generate_series(1, 10); insert into child (parent) select i from generate_series(1, 10) i;
        insert into grandchild select i, i from generate_series(1, 10) i; insert into alone select i from generate_series(1, 10) i;
        insert into other select i from generate_series(1, 10) i; insert into nokey values ('a'), ('a')`,
      });
      const { source, target } = replication;
      await replication.caughtUp();
      // As a target has them whose rows were once its own.
      await target.query("select setval('parent_id_seq', 50), setval('child_id_seq', 60)");
      const sequences = () =>
        target.query(
          "select last_value::int, is_called from parent_id_seq union all select last_value::int, is_called from child_id_seq",
        );
      await source.query("truncate alone, other");
      await replication.expectEqual();
      await source.query(
        "begin; insert into alone values (1, 'before'); truncate alone; insert into alone values (1, 'after'), (2, 'after'); commit",
      );
      await source.query("insert into nokey values ('b'); truncate nokey; insert into nokey values ('c')");
      await replication.expectEqual();
      await source.query("truncate parent cascade; insert into parent (v) values ('goes on')");
      await replication.expectEqual();
      expect(await target.query("select id from parent")).toEqual([{ id: 11 }]);
      expect(await sequences()).toEqual([
        { last_value: 50, is_called: true },
        { last_value: 60, is_called: true },
      ]);
      await source.query(
        "truncate parent restart identity cascade; insert into parent (v) values ('first again'); insert into child (parent) values (1)",
      );
      await replication.expectEqual();
      expect(await sequences()).toEqual([
        { last_value: 1, is_called: false },
        { last_value: 1, is_called: false },
      ]);
      expect(await target.query("select id from parent")).toEqual([{ id: 1 }]);
    },
  );
});

test.skipIf(!truncates)(
  "a table is truncated on the target also when one refers to it there that is not replicated",
  async () => {
    await using replication = await startReplication({
      schema:
        "create table parent (id int primary key, v text); create table child (id int primary key, parent int references parent)",
      rows: "insert into parent values (1, 'a'), (2, 'b')",
      config: "tables: { exclude: [public.child] }",
    });
    await replication.caughtUp();
    const { source, target } = replication;
    await source.query("truncate parent, child; insert into parent values (3, 'c')");
    await replication.expectEqual(["public.parent"]);
    expect(await target.query("select id from parent")).toEqual([{ id: 3 }]);
  },
);
