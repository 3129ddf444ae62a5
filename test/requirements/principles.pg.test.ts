import { expect, test } from "vitest";
import { freshDatabase, sharedCluster, testMajor } from "../support/clusters.ts";
import { configFile, done, erserver } from "../support/commands.ts";
import { expectEqualTables } from "../support/compare.ts";
import {
  caughtUp,
  type RunningPipeline,
  runPipeline,
  startReplication,
  testConfig,
} from "../support/pipeline-context.ts";
import { startProxy } from "../support/proxy.ts";
import { until } from "../support/wait.ts";

const LINK_TIMEOUT = "timeout: 2s";

test("S1: a transaction over several tables is seen whole or not at all, and nothing that was rolled back", async () => {
  await using replication = await startReplication({
    schema:
      "create table debit (id int primary key, v text); create table credit (id int primary key, v text)",
    config: "apply: { group: { transactions: 2 } }",
  });
  const { source, target } = replication;
  await replication.caughtUp();
  let writing = true;
  const reader = (async () => {
    const seen = new Set<number>();
    while (writing) {
      const [row] = await target.query<{ debits: number; credits: number; undone: number }>(
        `select (select count(*)::int from debit) as debits, (select count(*)::int from credit) as credits,
           (select count(*)::int from debit where v = 'undone') + (select count(*)::int from credit where v = 'undone') as undone`,
      );
      expect(row).toEqual({ debits: row?.debits, credits: row?.debits, undone: 0 });
      seen.add(row?.debits ?? 0);
    }
    return seen;
  })();
  const both = (from: number, to: number, v = "x"): string =>
    ["debit", "credit"]
      .map((table) => `insert into ${table} select i, '${v}' from generate_series(${from}, ${to}) i`)
      .join("; ");
  for (let i = 1; i <= 40; i++) {
    await source.query(
      `begin; insert into debit values (${i}, 'x'); savepoint s; ${both(-9, -1, "undone")}; rollback to s; insert into credit values (${i}, 'x'); commit`,
    );
    await source.query(`begin; ${both(1000, 1020, "undone")}; rollback`);
  }
  await source.query(`begin; ${both(2000, 12_000)}; commit`);
  await replication.caughtUp();
  writing = false;
  expect((await reader).size).toBeGreaterThan(1);
  await replication.expectEqual();
});

test("S2: transactions of concurrent writers appear in the order of their commits, and every state is one that the source had", async () => {
  await using replication = await startReplication({
    schema:
      "create table counter (id int primary key, n int); create table journal (n int primary key, writer int); create table work (id serial primary key, writer int)",
    rows: "insert into counter values (1, 0)",
  });
  const { source, target } = replication;
  await replication.caughtUp();
  const writers = 6;
  let writing = true;
  const reader = (async () => {
    let last = 0;
    let states = 0;
    while (writing) {
      const [row] = await target.query<{ n: number; rows: number; newest: number; work: number }>(
        `select (select n from counter) as n, (select count(*)::int from journal) as rows, (select coalesce(max(n), 0) from journal) as newest,
           (select count(*)::int from work) as work`,
      );
      // The counter's row lock gives every transaction the number of its commit: the source never had a gap.
      expect(row).toEqual({ n: row?.n, rows: row?.n, newest: row?.n, work: row?.n });
      expect(row?.n).toBeGreaterThanOrEqual(last);
      if ((row?.n ?? 0) > last) states++;
      last = row?.n ?? 0;
    }
    return states;
  })();
  await Promise.all(
    Array.from({ length: writers }, async (_, writer) => {
      const session = await source.connect();
      for (let i = 0; i < 20; i++) {
        await session.query(`begin; insert into work (writer) values (${writer})`);
        // They begin, and write first, in another order than they commit.
        await session.query(`select pg_sleep(${((writer * 7 + i * 3) % 5) / 1000})`);
        await session.query(
          `with next as (update counter set n = n + 1 returning n) insert into journal select n, ${writer} from next; commit`,
        );
      }
    }),
  );
  await replication.caughtUp();
  writing = false;
  expect(await reader).toBeGreaterThan(1);
  await replication.expectEqual();
});

test("S3: a link that falls silent is noticed, `status` says offline since when, and the process lives on", async () => {
  await using source = await freshDatabase(sharedCluster("source"));
  await using target = await freshDatabase(sharedCluster("target"));
  for (const database of [source, target]) await database.query("create table t (id int primary key)");
  using link = await startProxy({ target: { port: target.server.port } });
  const { name } = target;
  const urls = { [name]: link.url(target.url) };
  await using file = await configFile(source.url, urls, LINK_TIMEOUT);
  await using running = runPipeline(testConfig(source.url, urls, LINK_TIMEOUT), name);
  await caughtUp(source, running);

  const before = new Date();
  // Nothing passes, and nobody is told: TCP still takes the connection for open.
  link.stall();
  await source.query("insert into t values (1)");
  await until(() => running.pipeline.status.state === "offline", { what: "the silence to be noticed" });
  expect(running.pipeline.status).toMatchObject({
    side: "target",
    error: { code: expect.stringMatching(/^ERS-20[14]$/) },
  });
  const [status] = JSON.parse(await done(file.run("status", "--json"))) as [
    { state: string; side: string; since: string; running: boolean },
  ];
  expect(status).toMatchObject({ state: "offline", side: "target", running: true });
  expect(new Date(status.since).getTime()).toBeGreaterThanOrEqual(before.getTime());
  expect(await done(file.run("status"))).toMatch(new RegExp(`${name} +offline \\(target\\)`));
  expect(await Promise.race([running.finished.then(() => "ended"), Promise.resolve("lives")])).toBe("lives");
});

test("S4: when the component is available again, `status` says streaming with no command given", async () => {
  await using source = await freshDatabase(sharedCluster("source"));
  await using target = await freshDatabase(sharedCluster("target"));
  for (const database of [source, target]) await database.query("create table t (id int primary key)");
  using toSource = await startProxy({ target: { port: source.server.port } });
  using toTarget = await startProxy({ target: { port: target.server.port } });
  const { name } = target;
  const urls = { [name]: toTarget.url(target.url) };
  await using file = await configFile(toSource.url(source.url), urls, LINK_TIMEOUT);
  await using running = runPipeline(testConfig(toSource.url(source.url), urls, LINK_TIMEOUT), name);
  await caughtUp(source, running);
  for (const link of [toSource, toTarget]) {
    link.refuse();
    link.cut();
    await until(() => running.pipeline.status.state === "offline", { what: "the outage to be noticed" });
    await link.accept();
    const isStreaming = async (): Promise<boolean> => {
      const [status] = JSON.parse(await done(file.run("status", "--json"))) as [object];
      return "state" in status && status.state === "streaming" && !("error" in status);
    };
    await until(isStreaming, { what: "status to say streaming" });
  }
});

test("S5: after outages of source, target and replicator, also within the first copy, all that was written meanwhile arrives once and in order", async () => {
  await using source = await freshDatabase(sharedCluster("source"));
  await using target = await freshDatabase(sharedCluster("target"));
  const schema =
    "create table event (n serial, what text); alter table event replica identity full; create table t (id int primary key, v text)";
  for (const database of [source, target]) await database.query(schema);
  await source.query("insert into t select i, repeat('x', 500) from generate_series(0, 5000) i");
  using toSource = await startProxy({ target: { port: source.server.port } });
  using toTarget = await startProxy({ target: { port: target.server.port } });
  const { name } = target;
  const config = testConfig(toSource.url(source.url), { [name]: toTarget.url(target.url) }, LINK_TIMEOUT);
  const sessions: RunningPipeline[] = [];
  const start = (): RunningPipeline => {
    const running = runPipeline(config, name);
    sessions.push(running);
    return running;
  };
  try {
    let running = start();
    // In the middle of the rows of the first copy.
    await toTarget.next({ from: "client", type: "d", action: "cut-inside" });
    await source.query("insert into event (what) values ('during the copy')");
    await caughtUp(source, running);
    const outages: Record<string, () => Promise<void>> = {
      source: async () => toSource.cut(),
      target: async () => toTarget.cut(),
      sessions: async () => {
        for (const database of [source, target])
          await database.query(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name like 'erserver %' and application_name <> 'erserver test'",
          );
      },
      replicator: async () => {
        await running.stop();
        running = start();
      },
    };
    for (const [what, strike] of Object.entries(outages)) {
      for (let i = 0; i < 5; i++) {
        await source.query(
          `begin; insert into event (what) values ('${what} ${i}'); update t set v = '${what}' where id = ${i}; commit`,
        );
        if (i === 2) await strike();
      }
    }
    await caughtUp(source, running);
    await expectEqualTables(source.url, target.url);
    // In the order in which they were written: nothing was repeated at the end.
    const written = await target.query<{ n: number }>("select n from event order by ctid");
    expect(written.map(({ n }) => n)).toEqual(Array.from({ length: 21 }, (_, i) => i + 1));
    expect(await target.query("select conflicts::int from erserver.progress")).toEqual([{ conflicts: 0 }]);
  } finally {
    for (const running of sessions) await running.stop();
  }
});

test("S6: INSERT, UPDATE, DELETE and TRUNCATE each arrive", async () => {
  await using replication = await startReplication({
    schema: "create table t (id int primary key, v text); create table gone (id int primary key)",
    rows: "insert into gone values (1), (2)",
  });
  const { source, target } = replication;
  const rows = () => target.query("select id, v from t order by id");
  await source.query("insert into t values (1, 'a'), (2, 'b'), (3, 'c')");
  await replication.expectEqual();
  expect(await rows()).toHaveLength(3);
  await source.query("update t set v = 'changed' where id = 2");
  await replication.expectEqual();
  expect(await rows()).toContainEqual({ id: 2, v: "changed" });
  await source.query("delete from t where id = 1");
  await replication.expectEqual();
  expect(await rows()).toHaveLength(2);
  // The WAL tells of it from 11 on.
  await source.query(testMajor("source") < 11 ? "delete from gone" : "truncate gone");
  await replication.expectEqual();
  expect(await target.query("select from gone")).toEqual([]);
});

test("S7: one source feeds three targets, each at its own position; one that is away delays none, and a fourth joins while they go on", async () => {
  await using source = await freshDatabase(sharedCluster("source"));
  await using york = await freshDatabase(sharedCluster("target"));
  await using london = await freshDatabase(sharedCluster("target"));
  await using tokyo = await freshDatabase(sharedCluster("target"));
  await using lima = await freshDatabase(sharedCluster("target"));
  for (const database of [source, york, london, tokyo, lima])
    await database.query("create table trade (id int primary key, price numeric(12, 4))");
  await source.query("insert into trade select i, i * 1.0001 from generate_series(1, 500) i");
  using toTokyo = await startProxy({ target: { port: tokyo.server.port } });
  const urls = {
    [york.name]: york.url,
    [london.name]: london.url,
    [tokyo.name]: toTokyo.url(tokyo.url),
    [lima.name]: lima.url,
  };
  const config = testConfig(source.url, urls, LINK_TIMEOUT);
  await using toYorkPipeline = runPipeline(config, york.name);
  await using toLondonPipeline = runPipeline(config, london.name);
  await using toTokyoPipeline = runPipeline(config, tokyo.name);
  for (const running of [toYorkPipeline, toLondonPipeline, toTokyoPipeline]) await caughtUp(source, running);

  toTokyo.refuse();
  toTokyo.cut();
  await until(() => toTokyoPipeline.pipeline.status.state === "offline", { what: "tokyo to be away" });
  await source.query("update trade set price = price + 1");
  await using toLimaPipeline = runPipeline(config, lima.name);
  for (const [target, running] of [
    [york, toYorkPipeline],
    [london, toLondonPipeline],
    [lima, toLimaPipeline],
  ] as const) {
    await caughtUp(source, running);
    await expectEqualTables(source.url, target.url);
  }
  expect(await tokyo.query("select price::text from trade where id = 1")).toEqual([{ price: "1.0001" }]);
  // None of them was started again.
  expect(toYorkPipeline.statuses.filter(({ state }) => state === "copying")).toHaveLength(1);
  await toTokyo.accept();
  await caughtUp(source, toTokyoPipeline);
  await expectEqualTables(source.url, tokyo.url);
});

test("S8: `verify` proves the target equal to the source by counts and checksums of every table, to the last digit of numeric and money", async () => {
  await using source = await freshDatabase(sharedCluster("source"));
  await using target = await freshDatabase(sharedCluster("target"));
  for (const database of [source, target])
    await database.query(
      "create table position (id int primary key, amount numeric(30, 6), value money); create table quote (isin text primary key, price numeric)",
    );
  await source.query(
    `insert into position values (1, 123456789012345678901234.000001, 92233720368547758.07::numeric::money), (2, -0.000001, (-0.01)::numeric::money);
     insert into quote select 'X' || i, 1 / i::numeric from generate_series(1, 100) i; insert into quote values ('none', 'NaN')`,
  );
  const { name } = target;
  await using file = await configFile(source.url, { [name]: target.url });
  await done(file.run("sync"));
  await source.query("update position set amount = amount + 0.000001");
  expect(await done(file.run("verify"))).toMatch(
    new RegExp(`^${name}: 2 tables \\(103 rows\\) equal, compared at `),
  );
  await expectEqualTables(source.url, target.url);

  await target.query("update position set amount = amount + 0.000001 where id = 1");
  const wrong = await file.run("verify");
  expect(wrong.exit).toBe(1);
  expect(wrong.errors).toMatch(/^ERS-801 .*public\.position\n/);
  expect(wrong.errors).not.toContain("quote");
  // The same number of rows, and other ones.
  await target.query(
    "update position set amount = amount - 0.000001 where id = 1; delete from quote where isin = 'X7'; insert into quote values ('X7 ', 7)",
  );
  expect((await file.run("verify")).errors).toMatch(/^ERS-801 .*public\.quote\n/);
});

test("S9: with the tables there, one command makes an empty target replicate, and whatever is wrong names its remedy", async () => {
  await using source = await freshDatabase(sharedCluster("source"));
  await using target = await freshDatabase(sharedCluster("target"));
  const schema = "create table t (id int primary key, v text)";
  await source.query(`${schema}; insert into t values (1, 'a')`);
  const { name } = target;
  const wrongPort = new URL(target.url);
  wrongPort.port = "1";
  const refusals: readonly (readonly [string, RegExp])[] = [
    [target.url, /^ERS-401 [^]*public\.t\b[^]*\n {2}→ .*create/i],
    [wrongPort.toString(), /^ERS-201 [^]*\n {2}→ Start the server/],
    [`${target.url}_other`, /^ERS-203 [^]*\n {2}→ Create the database \(createdb\)/],
  ];
  for (const [url, said] of refusals) {
    await using file = await configFile(source.url, { [name]: url });
    const { exit, errors } = await file.run("sync");
    expect(exit).toBeGreaterThan(0);
    expect(errors).toMatch(said);
  }
  await target.query(schema);
  await using file = await configFile(source.url, { [name]: target.url });
  await done(file.run("sync"));
  await expectEqualTables(source.url, target.url);
  expect((await erserver("--help")).output).toMatch(/check[^]*init[^]*run[^]*status[^]*verify/);
});

test("S10: one command shows every target with state, lag, what the source keeps for it and its last error, counts the tables, and warns when more is kept than allowed", async () => {
  await using source = await freshDatabase(sharedCluster("source"));
  await using london = await freshDatabase(sharedCluster("target"));
  await using tokyo = await freshDatabase(sharedCluster("target"));
  for (const database of [source, london, tokyo])
    await database.query("create table t (id int primary key, v text); create table u (id int primary key)");
  await tokyo.query("insert into t values (9, 'somebody')");
  await using file = await configFile(
    source.url,
    { [london.name]: london.url, [tokyo.name]: tokyo.url },
    "capture: trigger\ncapture_log: { rows: 10 }\n",
  );
  await done(file.run("sync", "--target", london.name));
  expect(await file.run("sync", "--target", tokyo.name)).toMatchObject({ exit: 4 });
  await source.query("insert into t select i, 'x' from generate_series(1, 50) i");
  // The source has not heard of it for long; less than a minute never counts.
  await source.query("update erserver.consumer set confirmed_at = now() - interval '2 minutes'");

  const shown = await done(file.run("status"));
  const line = (name: string): string | undefined => shown.split("\n").find((text) => text.startsWith(name));
  expect(line("target")).toMatch(/state +for +lag +behind +position +transactions +rows +retained/);
  expect(line(london.name)).toMatch(/stopped .*\d+ [km]?B$|stopped .*[km]B/i);
  expect(line(tokyo.name)).toContain("stopped");
  expect(shown).toMatch(new RegExp(`${tokyo.name}: ERS-404 .*public\\.t[^]*→ `));
  expect(shown).toContain(`${tokyo.name}: 0 of 2 tables copied`);
  expect(shown).toMatch(/ERS-511 .*more than 10 changes.*more than `capture_log` allows\n {2}→ /);
  const targets = JSON.parse(await done(file.run("status", "--json"))) as { target: string }[];
  expect(targets).toEqual([
    expect.objectContaining({ target: london.name, state: "stopped", tables: { total: 2, copied: 2 } }),
    expect.objectContaining({
      target: tokyo.name,
      error: expect.objectContaining({ code: "ERS-404" }) as object,
    }),
  ]);
});
