import { Readable } from "node:stream";
import { generateIdentity, identityToRecipient } from "age-encryption";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createLogger } from "../../src/observability/log.ts";
import { dropPipeline } from "../../src/pipeline/drop.ts";
import { lockKeys } from "../../src/postgres/advisory-lock.ts";
import { apply, collector, confirm, prepare, prepareFile, registerTables } from "../support/carriers.ts";
import { type FreshDatabase, freshDatabase, sharedCluster, testMajor } from "../support/clusters.ts";
import { configFile, done as said, rserv } from "../support/commands.ts";
import { expectEqualTables } from "../support/compare.ts";
import { runPipeline, testConfig, testLog } from "../support/pipeline-context.ts";
import { until } from "../support/wait.ts";

let source: FreshDatabase;
let target: FreshDatabase;

beforeEach(async () => {
  source = await freshDatabase(sharedCluster("source"));
  target = await freshDatabase(sharedCluster("target"));
});

afterEach(async () => {
  await target[Symbol.asyncDispose]();
  await source[Symbol.asyncDispose]();
});

async function onBoth(sql: string): Promise<void> {
  for (const database of [source, target]) await database.query(sql);
}

const CUSTOMER = `create table customer (cust_id int primary key, lastname text, firstname text, note text);
  create table invoice (id bigint, line int, amount numeric(12, 2), at timestamptz, tags text[], primary key (id, line))`;
const CUSTOMERS = `insert into customer select i, 'Gould', 'First ' || i, repeat('é', i % 50) from generate_series(1, 500) i;
  insert into invoice select i / 3, i % 3, i * 1.25, now() + i * interval '1 hour', array['a', null, 'O''Neill, "x"'] from generate_series(1, 300) i`;

/** Brings all that has changed, and has it confirmed. */
async function carry(): Promise<number> {
  const { file, syncId } = await prepareFile(source.url);
  const applied = await apply(target.url, file);
  expect(applied.syncId).toBe(syncId);
  expect(await confirm(source.url, syncId)).toBe("confirmed");
  return applied.rows;
}

const contentOf = async (database: FreshDatabase): Promise<unknown> =>
  database.query(
    "select (select json_agg(c order by cust_id)::text from customer c) as customers, (select json_agg(i order by id, line)::text from invoice i) as invoices, (select max(lsn)::text from erserver.progress) as lsn",
  );

/** Refused, and nothing has happened to the target. */
async function refused(
  file: Buffer | Readable,
  code: string,
  options?: Parameters<typeof apply>[2],
): Promise<string> {
  const before = await contentOf(target);
  const error: unknown = await apply(target.url, file, options).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ code, remedy: expect.stringMatching(/\w\.$/) as string });
  expect(await contentOf(target)).toEqual(before);
  return (error as Error).message;
}

describe("carrier files", () => {
  test("S18, S46, T10: the first file brings all rows, each one behind it what has changed since, whatever was written meanwhile", async () => {
    await onBoth(CUSTOMER);
    await source.query(CUSTOMERS);
    await target.query(
      "insert into customer values (7, 'of the target', 'to go', null), (90000, 'x', 'y', 'z')",
    );
    await registerTables(source.url);
    const first = await prepareFile(source.url);
    expect(first).toMatchObject({ syncId: 1, baseSyncId: undefined, rows: 800 });
    // Committed while the file is on its way.
    await source.query(
      "delete from customer where cust_id = 3; insert into customer values (1000, 'Brown', 'New', null)",
    );
    expect(await apply(target.url, first.file)).toMatchObject({
      name: "pma",
      syncId: 1,
      baseSyncId: undefined,
      rows: 800,
      source: { database: source.name },
    });
    expect(await confirm(source.url, 1)).toBe("confirmed");
    expect(await confirm(source.url, 1)).toBe("already confirmed");
    expect(await carry()).toBe(2);
    await expectEqualTables(source.url, target.url);

    await source.query(
      `update customer set lastname = 'Nathaniel' where cust_id = 10; delete from customer where cust_id between 20 and 29;
       update customer set cust_id = cust_id + 5000 where cust_id between 30 and 39; update invoice set amount = -amount, tags = null where line = 2;
       insert into customer values (20, null, '\\N', E'tab\\tnewline\\nback\\\\slash')`,
    );
    await carry();
    await expectEqualTables(source.url, target.url);
    await source.query(
      "truncate customer; insert into customer values (1, 'only', 'one', ''); truncate invoice",
    );
    const last = await prepareFile(source.url);
    expect(last).toMatchObject({ syncId: 4, baseSyncId: 3, rows: 1 });
    await apply(target.url, last.file);
    await expectEqualTables(source.url, target.url);
    await confirm(source.url, 4);
    expect(await prepare(source.url)).toBeUndefined();
    // What came and went is nothing to the target, but to the logs.
    await source.query(
      "insert into customer values (2, 'x', 'y', 'z'); delete from customer where cust_id = 2",
    );
    expect(await carry()).toBe(0);
    expect(await prepare(source.url)).toBeUndefined();
    const [logs] = await source.query(
      "select (select count(*)::int from erserver.log_1) + (select count(*)::int from erserver.log_2) + (select count(*)::int from erserver.replacement) as left",
    );
    expect(logs).toEqual({ left: 0 });
  });

  test("S46: until a file is confirmed the next one begins before it, or with `following` behind it", async () => {
    await onBoth(CUSTOMER);
    await source.query(CUSTOMERS);
    await registerTables(source.url);
    const first = await prepareFile(source.url);
    await source.query("delete from customer where cust_id <= 100");
    const whole = await prepareFile(source.url);
    expect(whole).toMatchObject({ syncId: 2, baseSyncId: undefined, rows: 700 });
    // One way: nobody brings an answer back.
    await source.query("update customer set note = 'followed' where cust_id = 200");
    const third = await prepareFile(source.url, { following: true });
    await source.query("update customer set note = 'followed' where cust_id = 201");
    const fourth = await prepareFile(source.url, { following: true });
    expect([third, fourth]).toMatchObject([
      { syncId: 3, baseSyncId: 2, rows: 1 },
      { syncId: 4, baseSyncId: 3, rows: 1 },
    ]);
    expect(await prepare(source.url, { following: true })).toBeUndefined();
    await apply(target.url, first.file);
    await refused(third.file, "ERS-609");
    // It needs nothing of what was there before.
    await apply(target.url, whole.file);
    await apply(target.url, third.file);
    await apply(target.url, fourth.file);
    await expectEqualTables(source.url, target.url);
    expect(await confirm(source.url, 3)).toBe("confirmed");
    await source.query("update customer set note = 'again' where cust_id in (201, 202)");
    const fifth = await prepareFile(source.url);
    expect(fifth).toMatchObject({ syncId: 5, baseSyncId: 3, rows: 2 });
    expect(await refused(fifth.file, "ERS-609")).toMatch(/file 5 follows file 3, and target pma is at 4/);
    expect(await confirm(source.url, 4)).toBe("confirmed");
    expect(await confirm(source.url, 2)).toBe("already confirmed");
    expect(await carry()).toBe(2);
    await expectEqualTables(source.url, target.url);
    await expect(confirm(source.url, 77)).rejects.toMatchObject({ code: "ERS-611", message: /known are 6/ });
    await expect(confirm(source.url, 0)).rejects.toMatchObject({ code: "ERS-611" });
    await expect(confirm(source.url, 1, "nobody")).rejects.toMatchObject({ code: "ERS-611" });
  });

  test("T9: twice, out of order, cut short, altered: refused with a sentence, and nothing is applied", async () => {
    await onBoth(CUSTOMER);
    await source.query(CUSTOMERS);
    await registerTables(source.url);
    const first = await prepareFile(source.url);
    // A target that knows nothing yet.
    for (const damaged of [first.file.subarray(0, -1), first.file.subarray(0, 5000)])
      await expect(apply(target.url, damaged)).rejects.toMatchObject({ code: "ERS-606" });
    expect(await target.query("select from customer")).toEqual([]);
    await apply(target.url, first.file);
    expect(await refused(first.file, "ERS-608")).toBe("file 1 was applied already");
    await source.query("update customer set note = 'second' where cust_id < 300");
    const second = await prepareFile(source.url, { following: true });
    await source.query("update customer set note = 'third' where cust_id < 200");
    const third = await prepareFile(source.url, { following: true });
    expect(await refused(third.file, "ERS-609")).toMatch(/file 3 follows file 2, and target pma is at 1/);
    for (let length = 0; length < second.file.length; length += 997)
      await refused(second.file.subarray(0, length), length === 0 ? "ERS-604" : "ERS-606");
    for (let at = 25; at < second.file.length; at += 499) {
      const altered = Buffer.from(second.file);
      altered[at] = (altered[at] as number) ^ 0x10;
      await refused(altered, "ERS-606");
    }
    // As after a restore of either side.
    const recorded = "update erserver.progress set snapshot";
    const [at] = await target.query<{ snapshot: string }>("select snapshot from erserver.progress");
    await target.query(`${recorded} = '5:5:'`);
    expect(await refused(second.file, "ERS-609")).toMatch(/set back to an older state/);
    expect(await refused(first.file, "ERS-609")).toMatch(/set back to an older state/);
    await target.query(`${recorded} = $1`, [at?.snapshot]);
    await apply(target.url, second.file);
    expect(await refused(first.file, "ERS-608")).toBe("file 1 was applied already: target pma is at 2");
    await apply(target.url, third.file);
    await expectEqualTables(source.url, target.url);
  });

  test("T1, T2, T6, T8: tables of every kind, with keys and values of every kind", async () => {
    // Before 11 a partitioned table has no key of its own, and no row leaves its partition.
    const [key, move] =
      testMajor("source") < 11 ? ["", ""] : [", primary key (id)", "update p set id = 150 where id = 6;"];
    await onBoth(
      `create table keyless (a int, b text); create schema "Other one"; create table "Other one"."It's mine" ("Key" text primary key, "select" jsonb);
       create table swapped (id int primary key, place int unique); create table loose (n numeric primary key, v text);
       create table only_key (id uuid primary key);
       create table p (id int, v text${key}) partition by range (id); create table p1 partition of p for values from (0) to (100);
       create table p2 partition of p for values from (100) to (200) partition by range (id); create table p2a partition of p2 for values from (100) to (200);
       create table ident (id int generated always as identity primary key, v int)`,
    );
    // Columns in another order, one that the target has alone, one that it computes.
    await source.query("create table u (id int primary key, a text, b text)");
    await target.query("create table u (own text default 'own', b text, id int primary key, a text)");
    if (testMajor("source") >= 12 && testMajor("target") >= 12)
      await onBoth(
        "create table computed (id int primary key, twice int generated always as (id * 2) stored)",
      );
    await source.query(
      `insert into keyless values (1, 'a'), (1, 'a'), (null, null); insert into "Other one"."It's mine" values ('x', '{"a": [1, null]}'), ('', null);
       insert into swapped values (1, 1), (2, 2), (3, 3); insert into loose values (1.0, 'one'), (2.50, 'two'); insert into p select i, 'v' || i from generate_series(0, 199) i;
       insert into only_key select md5(i::text)::uuid from generate_series(1, 9) i; insert into ident (v) values (1), (2); insert into u values (1, 'a', 'b'), (2, 'c', 'd')`,
    );
    if (testMajor("source") >= 12 && testMajor("target") >= 12)
      await source.query("insert into computed values (1), (2)");
    await registerTables(source.url);
    await carry();
    await expectEqualTables(source.url, target.url);
    await target.query("update u set own = 'kept' where id = 1");
    await source.query(
      `delete from keyless where ctid = (select min(ctid::text)::tid from keyless); update "Other one"."It's mine" set "Key" = E'\\\\N' where "Key" = '';
       update swapped set place = 4 where id = 1; update swapped set place = 1 where id = 2; update swapped set place = 2 where id = 1;
       update loose set n = 1.000 where n = 1; update p set v = 'w' where id % 10 = 0; delete from p where id in (5, 150); ${move}
       delete from only_key where id in (select id from only_key limit 3); update ident set v = 9 where id = 2; update u set a = 'z' where id = 1`,
    );
    await carry();
    await expectEqualTables(source.url, target.url);
    expect(await target.query("select own from u where id = 1")).toEqual([{ own: "kept" }]);
    await source.query(
      "truncate p1; truncate p2; insert into p2a values (170, 'direct'); update keyless set b = 'b'",
    );
    await carry();
    await expectEqualTables(source.url, target.url);
    await source.query("delete from keyless");
    await carry();
    await expectEqualTables(source.url, target.url);
  });

  test("a table that is registered later comes whole, also one that was taken out in between; so does one that has lost triggers", async () => {
    await onBoth(CUSTOMER);
    await source.query(CUSTOMERS);
    await registerTables(source.url, ["public.customer"]);
    expect(await carry()).toBe(500);
    await source.query(
      "update customer set note = 'x' where cust_id = 1; delete from invoice where line = 0",
    );
    await registerTables(source.url, ["public.invoice"]);
    expect(await carry()).toBe(201);
    await expectEqualTables(source.url, target.url);
    const unregister = "update erserver.captured_table set registered = false where table_name = 'invoice'";
    await source.query(`${unregister}; update customer set note = 'y' where cust_id = 1`);
    expect(await prepareFile(source.url)).toMatchObject({ syncId: 3, baseSyncId: 2, rows: 1 });
    await source.query("update invoice set tags = null where line = 1");
    await registerTables(source.url, ["public.invoice"]);
    // What the source kept of it was given up meanwhile.
    expect(await carry()).toBe(201);
    await expectEqualTables(source.url, target.url);
    await source.query("alter table invoice disable trigger erserver_update; update invoice set amount = 0");
    expect(await carry()).toBe(200);
    await expectEqualTables(source.url, target.url);
    expect(await prepare(source.url)).toBeUndefined();
    await source.query("drop table invoice");
    await expect(prepare(source.url)).rejects.toMatchObject({ code: "ERS-505", subject: "public.invoice" });
  });

  test("a table that was taken out, and is registered again before the next file, comes whole though another target has kept it", async () => {
    const schema = "create table t (id int primary key, v int);";
    await onBoth(schema);
    await using other = await freshDatabase(sharedCluster("target"));
    await other.query(schema);
    await source.query("insert into t values (1, 1), (2, 2)");
    await using file = await configFile(source.url, { [other.name]: other.url }, "capture: trigger\n");
    await said(file.run("sync"));
    await registerTables(source.url);
    await carry();
    await said(rserv("MasterRemoveTable", source.url, "t"));
    await source.query("update t set v = 10 where id = 1");
    await said(file.run("sync"));
    await rserv("CleanLog", source.url, "1");
    await said(rserv("MasterAddTable", source.url, "t"));
    expect(await carry()).toBe(2);
    await expectEqualTables(source.url, target.url);
  });

  test("S28, S36: what the target lacks is named before anything is applied", async () => {
    await source.query(CUSTOMER);
    await source.query(CUSTOMERS);
    await registerTables(source.url);
    const { file } = await prepareFile(source.url);
    await expect(apply(target.url, file)).rejects.toMatchObject({
      code: "ERS-401",
      message: /public\.customer, public\.invoice/,
    });
    await target.query(`${CUSTOMER}; alter table customer drop column note`);
    await expect(apply(target.url, file)).rejects.toMatchObject({
      code: "ERS-402",
      remedy: /ADD COLUMN note text/,
    });
    await target.query("alter table customer add column note text");
    await apply(target.url, file);
    await expectEqualTables(source.url, target.url);
  });

  test("S44, T11: a file for another target, from another source, or to the source itself is refused", async () => {
    await onBoth(CUSTOMER);
    await source.query(CUSTOMERS);
    await registerTables(source.url);
    const first = await prepareFile(source.url);
    await apply(target.url, first.file);
    await expect(apply(source.url, first.file)).rejects.toMatchObject({
      code: "ERS-610",
      message: /is the source/,
    });
    // Another target that somebody has given the same name, and one of another source.
    await source.query("delete from erserver.consumer");
    expect(await refused((await prepareFile(source.url)).file, "ERS-610")).toMatch(
      /another target that the source calls pma/,
    );
    await using other = await freshDatabase(sharedCluster("source"));
    await other.query(CUSTOMER);
    await registerTables(other.url);
    const foreign = await prepareFile(other.url);
    expect(await refused(foreign.file, "ERS-610")).toMatch(new RegExp(`from "${other.name}"`));
    // The same rows, under two names.
    const twin = await prepareFile(source.url, { name: "twin" });
    expect(await refused(twin.file, "ERS-412")).toMatch(/by pipeline "pma" already/);
    await expect(prepare(target.url)).rejects.toMatchObject({ code: "ERS-407" });
    // T11: what was brought along by a dump means nothing here.
    await source.query("update erserver.capture_origin set system = '1'");
    await expect(prepare(source.url)).rejects.toMatchObject({ code: "ERS-306" });
  });

  test("a replicator and files do not serve one target", async () => {
    await onBoth(CUSTOMER);
    await source.query(CUSTOMERS);
    await registerTables(source.url);
    const { file } = await prepareFile(source.url);
    await apply(target.url, file);
    const config = testConfig(source.url, { pma: target.url }, "capture: trigger");
    await using running = runPipeline(config, "pma");
    await expect(running.finished).rejects.toMatchObject({
      code: "ERS-610",
      message: /come by carrier files/,
    });
    await using another = await freshDatabase(sharedCluster("target"));
    await another.query(CUSTOMER);
    const direct = testConfig(source.url, { direct: another.url }, "capture: trigger");
    await using serving = runPipeline(direct, "direct");
    await until(() => serving.pipeline.status.state === "streaming", { what: "the first copy" });
    await expect(prepare(source.url, { name: "direct" })).rejects.toMatchObject({ code: "ERS-610" });
    await serving.stop();
    // Somebody else has the target now.
    const holder = await target.connect();
    await holder.query(`select pg_advisory_lock(${lockKeys("apply", "pma")})`);
    await source.query("delete from customer where cust_id = 1");
    const second = await prepareFile(source.url, { following: true });
    await refused(second.file, "ERS-508");
    await holder.end();
    await until(() => apply(target.url, second.file).then(() => true), { what: "the target to be free" });
    await expectEqualTables(source.url, target.url);
    // What both know of each other goes, and it all begins again.
    const options = { config, target: config.targets[0]!, log: testLog() };
    expect((await dropPipeline(options)).left).toEqual([]);
    expect(await source.query("select from erserver.prepared_sync")).toEqual([]);
    await source.query("update customer set note = 'again'");
    const again = await prepareFile(source.url);
    expect(again).toMatchObject({ syncId: 1, baseSyncId: undefined });
    await apply(target.url, again.file);
    await expectEqualTables(source.url, target.url);
  });

  test("S18, T16: a file that is encrypted is applied by its identity alone", async () => {
    await onBoth(CUSTOMER);
    await source.query(CUSTOMERS);
    await registerTables(source.url);
    const identity = await generateIdentity();
    const recipient = await identityToRecipient(identity);
    const { file } = await prepareFile(source.url, { recipient });
    expect(file.includes(source.name)).toBe(false);
    for (const wrong of [undefined, await generateIdentity(), "AGE-SECRET-KEY-1"])
      await expect(apply(target.url, file, { identity: wrong })).rejects.toMatchObject({ code: "ERS-607" });
    await apply(target.url, file, { identity });
    await expectEqualTables(source.url, target.url);
    await expect(prepare(source.url, { recipient: "pma@example.org" })).rejects.toMatchObject({
      code: "ERS-607",
    });
  });

  test("T9: broken off in the middle, on either end, it is as if it had not begun", async () => {
    await onBoth(CUSTOMER);
    await source.query(
      "insert into customer select i, md5(i::text), md5(i::text || 'f'), repeat(md5(i::text), 3) from generate_series(1, 60000) i",
    );
    await registerTables(source.url);
    const preparing = new AbortController();
    await expect(
      prepare(source.url, { signal: preparing.signal, onProgress: () => preparing.abort() }),
    ).rejects.toMatchObject({ name: "AbortError" });
    const { file, syncId } = await prepareFile(source.url);
    expect(syncId).toBe(1);

    /** All but the last bytes of the file, and then nothing more. */
    const unfinished = (): Readable => {
      let given = false;
      return new Readable({
        read() {
          if (!given) this.push(file.subarray(0, -100));
          given = true;
        },
      });
    };
    const applying = new AbortController();
    const aborted = apply(target.url, unfinished(), {
      signal: applying.signal,
      onProgress: ({ rows }) => {
        if (rows > 30_000) applying.abort();
      },
    });
    await expect(aborted).rejects.toMatchObject({ name: "AbortError" });
    expect(await target.query("select from customer")).toEqual([]);
    const killed = apply(target.url, unfinished(), {
      onProgress: ({ rows }) => {
        if (rows > 30_000)
          void target.query(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = 'erserver pma'",
          );
      },
    });
    await expect(killed).rejects.toMatchObject({ code: expect.stringMatching(/^ERS-20/) as string });
    expect(await target.query("select from customer")).toEqual([]);
    await apply(target.url, file);
    await expectEqualTables(source.url, target.url);
  });

  test("T9: a file of which nobody knows whether it was written is not followed, and may be confirmed all the same", async () => {
    await onBoth(CUSTOMER);
    await source.query(CUSTOMERS);
    await registerTables(source.url);
    await carry();
    const fail = async (): Promise<Buffer> => {
      const { output, bytes } = collector();
      output._final = (done) => done(new Error("EIO: i/o error"));
      await expect(prepare(source.url, { output, following: true })).rejects.toMatchObject({
        code: "ERS-612",
      });
      return bytes();
    };
    await source.query("delete from customer where cust_id < 10");
    await fail();
    const third = await prepareFile(source.url, { following: true });
    expect(third).toMatchObject({ syncId: 3, baseSyncId: 1, rows: 9 });
    await apply(target.url, third.file);
    await source.query("delete from customer where cust_id < 20");
    const whole = await fail();
    expect(await apply(target.url, whole)).toMatchObject({ syncId: 4, baseSyncId: 3 });
    await source.query("delete from customer where cust_id < 30");
    expect(await refused((await prepareFile(source.url, { following: true })).file, "ERS-609")).toMatch(
      /follows file 3.*is at 4/,
    );
    await confirm(source.url, 4);
    expect(await carry()).toBe(10);
    await expectEqualTables(source.url, target.url);
  });

  test("a column that changes between two files is asked for; rows of columns that only the target has are told of", async () => {
    await onBoth(CUSTOMER);
    await onBoth("create table swapped (id int primary key, place int unique)");
    await source.query(`${CUSTOMERS}; insert into swapped values (1, 1)`);
    await target.query("alter table swapped add own text");
    await registerTables(source.url);
    const lines: string[] = [];
    const log = createLogger({ level: "warn", write: (line) => lines.push(line) });
    const { file } = await prepareFile(source.url);
    await apply(target.url, file, { log });
    expect(lines.join("")).toMatch(/public\.swapped has columns of its own/);
    await confirm(source.url, 1);
    await source.query(
      "alter table customer add column w text default 'd'; update customer set w = 'changed' where cust_id = 5; alter table customer rename note to remark",
    );
    const second = await prepareFile(source.url);
    await refused(second.file, "ERS-402");
    await target.query(
      "alter table customer add column w text default 'd'; alter table customer rename note to remark",
    );
    await apply(target.url, second.file);
    await expectEqualTables(source.url, target.url);
  });

  test(
    "T7: 200,000 rows pass in bounded memory, however slow either end is",
    { timeout: 180_000 },
    async () => {
      await onBoth("create table t (id int primary key, a text, b text)");
      await source.query(
        "insert into t select i, md5(i::text) || md5(i::text || 'x'), md5(i::text || 'y') || md5(i::text || 'z') from generate_series(1, 200000) i",
      );
      await registerTables(source.url);
      // What goes out stands still after the first megabyte.
      const { output, bytes } = collector();
      const take = output._write.bind(output);
      let written = 0;
      let goOn: (() => void) | undefined;
      let isOpen = false;
      output._write = (part: Buffer, encoding, done) => {
        written += part.length;
        const pass = (): void => take(part, encoding, done);
        if (isOpen || written < 1_000_000) pass();
        else goOn = pass;
      };
      let read = 0;
      const preparing = prepare(source.url, { output, onProgress: ({ rows }) => (read = rows) });
      await until(() => goOn !== undefined, { what: "the output to stand still" });
      await new Promise((resolve) => setTimeout(resolve, 1_000));
      expect(read).toBeLessThan(60_000);
      isOpen = true;
      goOn?.();
      const prepared = await preparing;
      const file = bytes();
      expect(prepared).toMatchObject({ rows: 200_000 });

      // The target stands still too.
      const holder = await target.connect();
      await holder.query("begin; lock table t in share mode");
      let taken = 0;
      const input = Readable.from(
        (function* () {
          for (; taken < file.length; taken += 64 * 1024) yield file.subarray(taken, taken + 64 * 1024);
        })(),
      );
      const applying = apply(target.url, input);
      await until(
        async () =>
          (await holder.query("select from pg_locks where relation = 't'::regclass and not granted"))
            .rowCount === 1,
        { what: "the target to stand still" },
      );
      await new Promise((resolve) => setTimeout(resolve, 1_000));
      expect(taken / file.length).toBeLessThan(0.6);
      await holder.end();
      expect(await applying).toMatchObject({ rows: 200_000 });
      await expectEqualTables(source.url, target.url);
    },
  );
});
