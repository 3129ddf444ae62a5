import { describe, expect, test } from "vitest";
import { createLogger } from "../../src/observability/log.ts";
import { sharedCluster } from "../support/clusters.ts";
import { caughtUp, runPipeline, startReplication, testConfig } from "../support/pipeline-context.ts";

describe("what the target must not do again", () => {
  test("triggers and rules of booktown's kind do not fire again: the stock is decremented once (T3)", async () => {
    await using replication = await startReplication({
      schema: `create table stock (isbn text primary key, stock int); create table shipments (id int primary key, isbn text); create table stock_log (n serial primary key, isbn text);
        create function check_shipment() returns trigger language plpgsql as $$ begin update public.stock set stock = stock - 1 where isbn = new.isbn; insert into public.stock_log (isbn) values (new.isbn); return new; end $$;
        create trigger check_shipment before insert on shipments for each row execute procedure check_shipment();
        create table editions (isbn text primary key, book int); create rule sync_stock as on update to editions do also update stock set isbn = new.isbn where isbn = old.isbn`,
      rows: "insert into stock values ('1', 10), ('2', 10); insert into editions values ('1', 1), ('2', 2); insert into shipments values (1, '1')",
    });
    await replication.caughtUp();
    await replication.source.query(
      "insert into shipments values (2, '1'), (3, '2'); update editions set isbn = '22' where book = 2",
    );
    await replication.expectEqual();
    expect(await replication.target.query("select stock from stock where isbn = '1'")).toEqual([
      { stock: 8 },
    ]);
    expect(await replication.target.query("select conflicts from erserver.progress")).toEqual([
      { conflicts: "0" },
    ]);
  });

  test("foreign keys: cascades of the source, deferred constraints, unique swaps, in any order of tables (T13)", async () => {
    await using replication = await startReplication({
      schema: `create table a_child (id int primary key, parent int); create table parent (id int primary key, code text unique deferrable);
        create table b_child (id int primary key, parent int references parent on delete cascade on update cascade);
        create table c_child (id int primary key, parent int references parent on delete set null on update cascade);
        create table d_child (id int primary key, parent int default 1 references parent on delete set default on update cascade);
        alter table a_child add foreign key (parent) references parent deferrable initially deferred;
        create table tree (id int primary key, up int references tree on delete cascade);
        create table slots (id int primary key, place int, exclude using btree (place with =) deferrable initially deferred)`,
      rows: `insert into parent select i, 'c' || i from generate_series(1, 10) i; insert into b_child select i, i from generate_series(1, 10) i; insert into c_child select i, i from generate_series(1, 10) i;
        insert into d_child select i, i from generate_series(1, 10) i; insert into tree select i, nullif(i / 2, 0) from generate_series(1, 15) i; insert into slots select i, i from generate_series(1, 5) i`,
    });
    const { source } = replication;
    const work = async (): Promise<void> => {
      await source.query(
        "begin; insert into a_child values (1, 99); insert into parent values (99, 'later'); commit; update parent set id = id + 100 where id in (2, 3)",
      );
      await source.query(
        "begin; set constraints all deferred; update parent set code = case code when 'c4' then 'c5' when 'c5' then 'c4' else code end; commit; update slots set place = 6 - place",
      );
      await source.query(
        "delete from a_child; delete from parent where id in (6, 7, 102); delete from tree where id = 2; delete from parent where id = 99",
      );
    };
    await work();
    await replication.expectEqual();
    await replication.running.stop();
    await source.query(
      "insert into parent values (2, 'x2'), (6, 'x6'), (7, 'x7'); update parent set id = 3 where id = 103; insert into tree values (2, 1), (4, 2)",
    );
    await work();
    await replication.restart();
    await replication.expectEqual();
    expect(await replication.target.query("select conflicts from erserver.progress")).toEqual([
      { conflicts: "0" },
    ]);
  });
});

describe("roles", () => {
  test("an ordinary role without any grant on our objects keeps writing on the source (T5)", async () => {
    const role = `writer_${process.pid}`;
    await using replication = await startReplication({
      schema: "create table t (id int primary key, v text); create table nokey (v text)",
    });
    const { source } = replication;
    await source.query(
      `create role ${role} login; grant select, insert, update, delete, truncate on t, nokey to ${role}; grant usage on schema public to ${role}`,
    );
    try {
      await replication.caughtUp();
      const session = await source.connect(role);
      await session.query(
        "insert into t select i, 'x' from generate_series(1, 10) i; update t set v = 'y'; delete from t where id > 5; insert into nokey values ('a'); update nokey set v = 'b'; delete from nokey",
      );
      await session.query("truncate nokey");
      await replication.expectEqual(["public.t"]);
      expect(await source.query("select nspname from pg_namespace where nspname = 'erserver'")).toEqual([]);
    } finally {
      await source
        .query(`drop owned by ${role}; drop role ${role}`)
        .catch(() => source.query(`drop role if exists ${role}`));
    }
  });

  test("neither side needs a superuser; what the target's role may not do, and tables without identity, are said (S14)", async () => {
    await using replication = await startReplication({ schema: "create table unused (id int primary key)" });
    await replication.caughtUp();
    await replication.running.stop();
    const role = `plain_${process.pid}`;
    const { source, target } = replication;
    const schema = `grant create, usage on schema public to ${role}; set role ${role};
      create table parent (id int primary key, v text); create table child (id int generated always as identity primary key, parent int references parent on delete cascade); create table bag (v text); reset role`;
    await source.query(
      `create role ${role} login replication; grant create on database ${source.name} to ${role}; ${schema}`,
    );
    const sameServer = sharedCluster("source").port === sharedCluster("target").port;
    await target.query(
      `${sameServer ? "" : `create role ${role} login;`} grant create on database ${target.name} to ${role}; drop schema if exists erserver cascade; ${schema}`,
    );
    const lines: string[] = [];
    try {
      const config = testConfig(
        source.server.url(source.name, role),
        { [`plain_${target.name}`]: target.server.url(target.name, role) },
        'tables: { exclude: ["public.unused"] }',
      );
      replication.running = runPipeline(config, `plain_${target.name}`, {
        log: createLogger({ level: "warn", write: (line) => lines.push(line) }),
      });
      await caughtUp(source, replication.running);
      await source.query(
        "insert into parent values (1, 'a'), (2, 'b'); insert into child (parent) values (1), (2); insert into bag values ('x')",
      );
      await replication.expectEqual(["public.parent", "public.child", "public.bag"]);
      await source.query(
        "begin; insert into parent values (3, 'c'); insert into child (parent) values (3); commit; update parent set v = 'd'; update child set id = default where id = 3; delete from child where id = 1",
      );
      await replication.expectEqual(["public.parent", "public.child"]);
      expect(lines.join("\n")).toMatch(/session_replication_role/);
      expect(lines.join("\n")).toMatch(
        /public\.bag has no row identity.*ERS-704|ERS-704.*public\.bag has no row identity/,
      );
    } finally {
      await replication.running.stop();
      for (const database of [source, target])
        await database.query(`drop owned by ${role} cascade; drop schema if exists erserver cascade`);
      await source.query(
        `select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database() and not active; drop role ${role}`,
      );
      if (!sameServer) await target.query(`drop role ${role}`);
    }
  });

  test("rows that a policy hides from the role are never left out silently", async () => {
    const role = `blind_${process.pid}`;
    await using replication = await startReplication({ schema: "create table t (id int primary key)" });
    await replication.caughtUp();
    await replication.running.stop();
    const { source, target } = replication;
    await source.query(`create role ${role} login replication; create table hidden (id int primary key); insert into hidden values (1), (2); alter table hidden enable row level security;
      create policy half on hidden using (id = 1); grant select on hidden, t to ${role}; `);
    await target.query("create table hidden (id int primary key)");
    try {
      const config = testConfig(
        source.server.url(source.name, role),
        { [replication.config.targets[0]!.name]: target.url },
        `tables: { include: ["public.hidden", "public.t"] }`,
      );
      const name = replication.config.targets[0]!.name;
      const [publication] = await source.query<{ pubname: string }>(
        "select pubname from pg_publication where pubname !~ '_insert$'",
      );
      // A superuser made what the role may not.
      await source.query(`alter publication ${publication!.pubname} add table hidden`);
      replication.running = runPipeline(config, name);
      const error = await replication.running.finished.catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ message: expect.stringContaining("row-level security") });
      expect(await target.query("select 1 from hidden")).toEqual([]);
    } finally {
      await replication.running.stop();
      await source.query(`drop owned by ${role}; drop role ${role}`);
    }
  });
});
