import { describe, expect, test } from "vitest";
import { testMajor } from "../support/clusters.ts";
import { type Replication, runPipeline, startReplication, testConfig } from "../support/pipeline-context.ts";

const filters = testMajor("source") >= 15;

async function stopped(replication: Replication): Promise<unknown> {
  return replication.running.finished.then(
    () => "it ended",
    (error: unknown) => error,
  );
}

describe("part of a table", () => {
  test("a column list leaves the other columns of the target alone", async () => {
    await using replication = await startReplication({
      sourceSchema:
        "create table employee (secret text, id int primary key, name text, salary numeric); create table part (id int, at int, v text, hidden text, primary key (id, at)); create table whole (a int, b int); alter table whole replica identity full",
      targetSchema:
        "create table employee (id int primary key, name text, salary numeric default -1, secret text); create table part (id int, at int, v text, hidden text, primary key (id, at)); create table whole (a int, b int)",
      rows: "insert into employee select 's', i, 'n' || i, i from generate_series(1, 10) i; insert into part values (1, 1, 'a', 'h')",
      config:
        "tables: { include: [{ table: public.employee, columns: [id, name] }, { table: public.part, columns: [v, at, id] }, { table: public.whole, columns: [b, a] }] }",
    });
    await replication.caughtUp();
    const { source, target } = replication;
    await target.query("update employee set secret = 'mine' where id = 3");
    await source.query(
      "insert into employee values ('t', 11, 'n', 5); update employee set name = 'x', salary = 0 where id < 5; update employee set salary = 1; update employee set id = 30 where id = 3; delete from employee where id = 4; update part set v = 'b', hidden = 'i'; update part set at = 2",
    );
    await replication.caughtUp();
    await source.query(
      "insert into whole values (1, 1), (2, 2); update whole set b = 3 where a = 1; delete from whole where a = 2",
    );
    await replication.expectEqual(["public.whole"]);
    const rows = await source.query("select id, name from employee order by id");
    expect(await target.query("select id, name from employee order by id")).toEqual(rows);
    expect(await target.query("select distinct salary::int as salary from employee")).toEqual([
      { salary: -1 },
    ]);
    expect(await target.query("select id from employee where secret is not null")).toEqual([{ id: 30 }]);
    expect(await target.query("select * from part")).toEqual([{ id: 1, at: 2, v: "b", hidden: null }]);
  });

  test("a column list without the row identity is refused, because UPDATE would fail on the source", async () => {
    await using replication = await startReplication({
      schema:
        "create table t (id int primary key, v text); create table whole (a int, b int); alter table whole replica identity full",
      config:
        "tables: { include: [{ table: public.t, columns: [v] }, { table: public.whole, columns: [a] }] }",
    });
    expect(await stopped(replication)).toMatchObject({
      code: "ERS-704",
      message: expect.stringMatching(/public\.t .*"id".*public\.whole .*"b"/),
    });
    await replication.source.query("insert into t values (1, 'a'); update t set v = 'b'; delete from t");
    expect(await replication.source.query("select 1 from pg_publication")).toEqual([]);
  });

  test.skipIf(!filters)("rows enter and leave a row filter", async () => {
    await using replication = await startReplication({
      schema: `create table keyed (id int, region text, v int, primary key (id, region)); create table whole (id int, active boolean, v text, big text); alter table whole alter big set storage external; alter table whole replica identity full`,
      rows: `insert into keyed select i, (array['eu', 'us'])[1 + i % 2], i from generate_series(1, 20) i; insert into whole select i, i % 2 = 0, 'v', repeat(md5(i::text), 300) from generate_series(1, 10) i`,
      config: `tables: { include: [{ table: public.keyed, where: "region = 'eu'" }, { table: public.whole, where: "active" }] }`,
    });
    const { source, target } = replication;
    const check = async (): Promise<void> => {
      await replication.caughtUp();
      expect(await target.query("select * from keyed order by id")).toEqual(
        await source.query("select * from keyed where region = 'eu' order by id"),
      );
      expect(await target.query("select * from whole order by id")).toEqual(
        await source.query("select * from whole where active order by id"),
      );
    };
    await check();
    await source.query(
      "update keyed set region = 'us' where id < 8 and region = 'eu'; update keyed set region = 'eu', v = -v where id in (3, 5); update keyed set v = v + 1; insert into keyed values (50, 'eu', 1), (51, 'us', 1); delete from keyed where id > 18",
    );
    await source.query(
      "update whole set active = not active where id < 6; update whole set v = 'w'; update whole set active = null where id = 8; delete from whole where id in (9, 10)",
    );
    await check();
    await replication.restart();
    await source.query("update whole set active = true; update keyed set region = 'eu'");
    await check();
    expect(await target.query("select conflicts from erserver.progress")).toEqual([{ conflicts: "0" }]);
  });

  test.skipIf(!filters)("rows enter and leave the row filter of a table with a column list", async () => {
    const include = ["indexed", "whole"].map(
      (name) => `{ table: public.${name}, columns: [id, name, active], where: active }`,
    );
    await using replication = await startReplication({
      sourceSchema: `create table indexed (secret text, id int primary key, name text, active boolean not null);
        create unique index indexed_shown on indexed (id, active); alter table indexed replica identity using index indexed_shown;
        create table whole (id int, active boolean, name text); alter table whole replica identity full`,
      targetSchema: `create table indexed (id int primary key, name text, active boolean, secret text default 'of the target');
        create table whole (name text, id int, active boolean, extra int default 7)`,
      rows: `insert into indexed select 'of the source', i, 'n' || i, i % 2 = 0 from generate_series(1, 10) i;
        insert into whole select i, nullif(i % 3, 2) = 0, 'n' || i % 5 from generate_series(1, 10) i`,
      config: `tables: { include: [${include.join(", ")}] }`,
    });
    const { source, target } = replication;
    const check = async (): Promise<void> => {
      await replication.caughtUp();
      for (const table of ["indexed", "whole"])
        expect(await target.query(`select id, name, active from ${table} order by id, name`)).toEqual(
          await source.query(`select id, name, active from ${table} where active order by id, name`),
        );
    };
    await check();
    const work = async (): Promise<void> => {
      await source.query(
        "update indexed set active = not active where id < 5; update indexed set name = name || '!', secret = 's'; update indexed set active = not active, id = id + 20 where id in (5, 6); delete from indexed where id in (7, 8); insert into indexed values ('s', 7, 'again', false), ('s', 8, 'again', true)",
      );
      await source.query(
        "update whole set active = not active where id < 5; update whole set name = name || '!'; update whole set active = null where id = 6; delete from whole where id > 8; insert into whole values (9, null, 'x'), (10, true, 'x'), (10, true, 'x')",
      );
      await source.query(
        "begin; update indexed set active = false where id = 10; update indexed set active = true, name = 'back' where id = 10; delete from indexed where id = 10; insert into indexed values ('s', 10, 'new', true); commit",
      );
    };
    await work();
    await check();
    await replication.running.stop();
    await source.query("delete from indexed where id > 20");
    await work();
    await replication.restart();
    await check();
    expect(await target.query("select distinct secret from indexed")).toEqual([{ secret: "of the target" }]);
    expect(await target.query("select distinct extra from whole")).toEqual([{ extra: 7 }]);
    expect(await target.query("select conflicts from erserver.progress")).toEqual([{ conflicts: "0" }]);
  });

  test.skipIf(!filters)(
    "a row filter over a column that the column list leaves out is refused by its name, whatever the identity: PostgreSQL's UPDATE would fail",
    async () => {
      await using replication = await startReplication({
        schema:
          "create table employee (id int primary key, name text, active boolean not null, salary int); create unique index employee_shown on employee (id, active)",
        rows: "insert into employee values (1, 'a', true, 1), (2, 'b', false, 2)",
        config: "tables: { include: [{ table: public.employee, columns: [id, name], where: active }] }",
      });
      const { source, target } = replication;
      const session = await source.connect();
      for (const { identity, detail, message, remedy } of [
        {
          identity: "default",
          detail: "Column used in the publication WHERE expression is not part of the replica identity.",
          message: 'row filter of public.employee uses "active", which do not identify its rows',
          remedy: "ALTER TABLE public.employee REPLICA IDENTITY",
        },
        {
          identity: "using index employee_shown",
          detail: "Column list used by the publication does not cover the replica identity.",
          message: 'public.employee is identified by "active", which the column list leaves out',
          remedy: "Add these columns to the column list.",
        },
        {
          identity: "full",
          detail: "Column list used by the publication does not cover the replica identity.",
          message: 'public.employee is identified by "active", "salary", which the column list leaves out',
          remedy: "Add these columns to the column list.",
        },
      ]) {
        await replication.running.stop();
        await source.query(`alter table employee replica identity ${identity}`);
        await session.query("begin; create publication p for table employee (id, name) where (active)");
        await expect(session.query("update employee set name = 'c'")).rejects.toMatchObject({ detail });
        await session.query("rollback");
        await replication.restart();
        expect(await stopped(replication)).toMatchObject({
          code: "ERS-704",
          subject: "public.employee",
          message: expect.stringContaining(message),
          remedy: expect.stringContaining(remedy),
        });
        await source.query("update employee set name = name || '!'");
      }
      expect(await target.query("select 1 from employee")).toEqual([]);

      // An index identity that has the filter's columns, and a column list that has those of the identity.
      await source.query("alter table employee replica identity using index employee_shown");
      replication.running = runPipeline(
        testConfig(
          source.url,
          { [source.name]: target.url },
          "tables: { include: [{ table: public.employee, columns: [id, name, active], where: active }] }",
        ),
        source.name,
      );
      await replication.caughtUp();
      await source.query("update employee set active = not active");
      await replication.caughtUp();
      expect(await target.query("select * from employee")).toEqual([
        { id: 2, name: "b!!!", active: true, salary: null },
      ]);
    },
  );

  test.skipIf(!filters)(
    "a row filter over other columns than the identity is refused, because UPDATE would fail on the source",
    async () => {
      await using replication = await startReplication({
        schema: "create table t (id int primary key, active boolean)",
        config: "tables: { include: [{ table: public.t, where: active }] }",
      });
      expect(await stopped(replication)).toMatchObject({
        code: "ERS-704",
        subject: "public.t",
        message: expect.stringContaining('"active"'),
        remedy: expect.stringContaining("REPLICA IDENTITY FULL"),
      });
      await replication.source.query(
        "insert into t values (1, true); update t set active = false; delete from t",
      );
    },
  );

  test.runIf(!filters)("a row filter on an old source is refused by name", async () => {
    await using replication = await startReplication({
      schema: "create table t (id int primary key)",
      config: "tables: { include: [{ table: public.t, where: id > 1 }] }",
    });
    expect(await stopped(replication)).toMatchObject({ code: "ERS-107", subject: "public.t" });
  });

  test.skipIf(!filters)(
    "columns or a filter that change after the copy are refused by name; the remedy fills the table again",
    async () => {
      await using replication = await startReplication({
        schema: "create table t (id int primary key, v text); create table other (id int primary key)",
        rows: "insert into t select i, 'v' || i from generate_series(1, 20) i; insert into other values (1)",
        config: `tables: { include: [public.other, { table: public.t, where: "id < 10", columns: [id] }] }`,
      });
      const { source, target } = replication;
      await replication.caughtUp();
      const restartWith = async (extra: string): Promise<void> => {
        await replication.running.stop();
        replication.running = runPipeline(
          testConfig(source.url, { [source.name]: target.url }, extra),
          source.name,
        );
      };
      // The same filter in other words is the same.
      await restartWith(
        `tables: { include: [public.other, { table: public.t, where: "( id<10 )", columns: [id] }] }`,
      );
      await source.query("insert into t values (0, 'in'), (30, 'out')");
      await replication.caughtUp();
      expect((await target.query("select 1 from t")).length).toBe(10);

      for (const [what, selector] of [
        ["`where`", `{ table: public.t, where: "id < 15", columns: [id] }`],
        ["`columns`", `{ table: public.t, where: "id < 10" }`],
        ["`columns` and `where`", "public.t"],
      ]) {
        await restartWith(`tables: { include: [public.other, ${selector}] }`);
        expect(await stopped(replication)).toMatchObject({
          code: "ERS-411",
          subject: "public.t",
          message: expect.stringContaining(`${what} of public.t changed`),
        });
      }
      await restartWith("tables: { exclude: [public.t] }");
      await replication.caughtUp();
      await target.query("truncate t");
      await source.query("delete from t where id = 3");
      await restartWith("");
      await replication.expectEqual();
    },
  );

  test.skipIf(!filters)(
    "a row that enters the filter without its large unchanged columns stops the pipeline instead of losing them",
    async () => {
      await using replication = await startReplication({
        schema:
          "create table t (id int, region text, big text, primary key (id, region)); alter table t alter big set storage external",
        rows: "insert into t values (1, 'us', repeat('x', 9000))",
        config: `tables: { include: [{ table: public.t, where: "region = 'eu'" }] }`,
      });
      await replication.caughtUp();
      await replication.source.query("update t set region = 'eu'");
      expect(await stopped(replication)).toMatchObject({
        code: "ERS-702",
        subject: "public.t",
        remedy: expect.stringContaining("REPLICA IDENTITY FULL"),
      });
      expect(await replication.target.query("select 1 from t")).toEqual([]);
    },
  );
});
