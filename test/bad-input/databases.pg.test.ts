import { describe, expect, test } from "vitest";
import type { Config } from "../../src/config/config.ts";
import { dropPipeline } from "../../src/pipeline/drop.ts";
import { initPipeline } from "../../src/pipeline/init.ts";
import { syncTarget } from "../../src/pipeline/sync.ts";
import { slotNameFor } from "../../src/quote/slot-name.ts";
import { verifyTarget } from "../../src/verify/verify.ts";
import {
  commandOptions,
  expectRefused,
  expectStopped,
  ourObjects,
  recordedLsn,
  type Refusal,
  rowVersions,
} from "../support/bad-input.ts";
import { type FreshDatabase, freshDatabase, sharedCluster } from "../support/clusters.ts";
import { expectEqualTables } from "../support/compare.ts";
import { caughtUp, runPipeline, testConfig } from "../support/pipeline-context.ts";

const TABLE = "create table t (id int primary key, v text)";
const ROWS = "insert into t values (1, 'one'), (2, 'two')";

interface World {
  readonly source: FreshDatabase;
  readonly target: FreshDatabase;
  /** Of the target, and of the roles that a case makes. */
  readonly name: string;
  readonly slot: string;
  readonly config: Config;
}

interface Case {
  readonly what: string;
  readonly refusal: (world: World) => Refusal;
  readonly targetTable?: string;
  /** More YAML. */
  readonly yaml?: string;
  /** Roles to connect as instead of the superuser; `prepare` makes them. */
  readonly roles?: { readonly source?: string; readonly target?: string };
  readonly adopt?: boolean;
  readonly prepare: (world: World) => Promise<unknown>;
  /** Exactly what the remedy says; then the pipeline is started again. */
  readonly mend: (world: World) => Promise<unknown>;
}

async function inWorld(
  { targetTable = TABLE, roles = {}, yaml = "" }: Partial<Case>,
  work: (world: World) => Promise<void>,
): Promise<void> {
  await using source = await freshDatabase(sharedCluster("source"));
  await using target = await freshDatabase(sharedCluster("target"));
  await source.query(`${TABLE}; ${ROWS}`);
  await target.query(targetTable);
  const { name } = source;
  const urls = [
    sharedCluster("source").url(source.name, roles.source === undefined ? undefined : `${name}_s`),
    sharedCluster("target").url(target.name, roles.target === undefined ? undefined : `${name}_t`),
  ] as const;
  for (const [database, role, suffix] of [
    [source, roles.source, "s"],
    [target, roles.target, "t"],
  ] as const)
    if (role !== undefined) await database.query(`create role ${name}_${suffix} ${role}`);
  const config = testConfig(urls[0], { [name]: urls[1] }, yaml);
  try {
    await work({ source, target, name, slot: slotNameFor(name), config });
  } finally {
    for (const [database, role, suffix] of [
      [source, roles.source, "s"],
      [target, roles.target, "t"],
    ] as const)
      if (role !== undefined)
        await database.query(
          `drop schema if exists erserver cascade; drop owned by ${name}_${suffix} cascade; drop role ${name}_${suffix}`,
        );
  }
}

async function expectGoesOn(world: World, adopt = false): Promise<void> {
  const { source, target, config, name } = world;
  await using running = runPipeline(config, name, { adopt });
  await caughtUp(source, running);
  await source.query("insert into t values (9, 'later')");
  await caughtUp(source, running);
  await expectEqualTables(source.url, target.url, ["public.t"]);
}

/** What `erserver drop`, emptying the tables, and starting again comes to. */
async function startOver({ config, target }: World): Promise<void> {
  await dropPipeline(commandOptions(config));
  await target.query("truncate t");
}

const BEFORE: readonly Case[] = [
  {
    what: "a table that the target does not have",
    targetTable: "create table other (id int)",
    refusal: () => ({
      code: "ERS-401",
      names: "public.t",
      remedy: "pg_dump --schema-only --table='public.t'",
    }),
    prepare: async () => {},
    mend: ({ target }) => target.query(TABLE),
  },
  {
    what: "a column that the target does not have",
    targetTable: "create table t (id int primary key)",
    refusal: () => ({
      code: "ERS-402",
      names: "public.t.v",
      remedy: "ALTER TABLE public.t ADD COLUMN v text;",
    }),
    prepare: async () => {},
    mend: ({ target }) => target.query("ALTER TABLE public.t ADD COLUMN v text;"),
  },
  {
    what: "a column that is narrower on the target",
    refusal: () => ({
      code: "ERS-403",
      names: "public.t.n",
      remedy: 'ALTER TABLE public.t ALTER COLUMN "n" TYPE numeric(12,4);',
    }),
    prepare: async ({ source, target }) => {
      await source.query("alter table t add column n numeric(12,4) default 1.2345");
      await target.query("alter table t add column n numeric(12,2)");
    },
    mend: ({ target }) => target.query('ALTER TABLE public.t ALTER COLUMN "n" TYPE numeric(12,4);'),
  },
  {
    what: "a domain of the same name over another type",
    refusal: () => ({ code: "ERS-403", names: "public.t.d", remedy: 'ALTER COLUMN "d" TYPE' }),
    prepare: async ({ source, target }) => {
      await source.query("create domain measure as int; alter table t add column d measure default 1");
      await target.query("create domain measure as real; alter table t add column d measure");
    },
    mend: ({ target }) =>
      target.query(
        "drop domain measure cascade; create domain measure as int; alter table t add column d measure",
      ),
  },
  {
    what: "a column of another type on the target",
    targetTable: "create table t (id int primary key, v date)",
    refusal: () => ({
      code: "ERS-403",
      names: "public.t.v",
      remedy: 'ALTER TABLE public.t ALTER COLUMN "v" TYPE text',
    }),
    prepare: async () => {},
    mend: ({ target }) => target.query(`alter table public.t alter column "v" type text`),
  },
  {
    what: "a slot of our name that somebody else has made",
    refusal: ({ slot }) => ({
      code: "ERS-501",
      names: slot,
      remedy: `SELECT pg_drop_replication_slot('${slot}')`,
    }),
    prepare: ({ source, slot }) =>
      source.query(`select pg_create_logical_replication_slot('${slot}', 'pgoutput')`),
    mend: ({ source, slot }) => source.query(`select pg_drop_replication_slot('${slot}')`),
  },
  {
    what: "a publication of our name that somebody else has made",
    refusal: ({ slot }) => ({ code: "ERS-506", names: slot, remedy: `DROP PUBLICATION "${slot}"` }),
    prepare: ({ source, slot }) => source.query(`create publication ${slot} with (publish = 'insert')`),
    mend: ({ source, slot }) => source.query(`drop publication ${slot}`),
  },
  {
    what: "a schema erserver that a newer version has made",
    refusal: ({ target }) => ({ code: "ERS-408", names: target.name, remedy: "Upgrade erserver" }),
    prepare: async ({ target, config }) => {
      await initPipeline(commandOptions(config));
      await target.query(
        "insert into erserver.migration values ('9999_future.sql'); alter table erserver.pipeline rename slot to source_slot",
      );
    },
    mend: ({ target }) =>
      target.query(
        "delete from erserver.migration where name = '9999_future.sql'; alter table erserver.pipeline rename source_slot to slot",
      ),
  },
  {
    what: "a source role without REPLICATION",
    yaml: "capture: wal",
    roles: { source: "login" },
    refusal: ({ name }) => ({
      code: "ERS-302",
      names: `${name}_s`,
      remedy: new RegExp(`ALTER ROLE "?${name}_s"? REPLICATION`),
    }),
    prepare: ({ source, name }) =>
      source.query(`alter table t owner to ${name}_s; grant create on database ${source.name} to ${name}_s`),
    mend: ({ source, name }) => source.query(`alter role ${name}_s replication`),
  },
  {
    what: "a target role that may not make the schema",
    roles: { target: "login" },
    refusal: ({ name, target }) => ({
      code: "ERS-304",
      names: target.name,
      remedy: new RegExp(`GRANT CREATE ON DATABASE "?${target.name}"? TO "?${name}_t"?`),
    }),
    prepare: ({ target, name }) =>
      target.query(`alter table t owner to ${name}_t; revoke create on database ${target.name} from public`),
    mend: ({ target, name }) => target.query(`grant create on database ${target.name} to ${name}_t`),
  },
];

test.concurrent.for(BEFORE.map((one) => [one.what, one] as const))(
  "%s: refused before anything is made, and it works when that is mended",
  async ([, one]) => {
    await inWorld(one, async (world) => {
      const { source, target, config, name } = world;
      await one.prepare(world);
      const facts = async (): Promise<unknown> => [
        await ourObjects(source.url),
        await ourObjects(target.url),
        await rowVersions(source.url),
        await rowVersions(target.url),
      ];
      const before = await facts();
      const refusal = one.refusal(world);
      const options = commandOptions(config);
      await expectStopped(runPipeline(config, name), refusal);
      await expectRefused(initPipeline(options), refusal);
      await expectRefused(syncTarget(options), refusal);
      expect(await facts()).toEqual(before);
      await one.mend(world);
      await expectGoesOn(world);
    });
  },
);

const AT_COPY: readonly Case[] = [
  {
    what: "rows on the target before the first copy",
    refusal: () => ({
      code: "ERS-404",
      names: "public.t",
      remedy: /erserver run --adopt.*TRUNCATE public\.t;/,
    }),
    prepare: ({ target }) => target.query("insert into t values (7, 'theirs')"),
    mend: ({ target }) => target.query("truncate public.t"),
  },
  {
    what: "the source's rows on the target, not asked to be adopted",
    refusal: () => ({ code: "ERS-404", names: "public.t", remedy: "erserver run --adopt" }),
    prepare: ({ target }) => target.query(ROWS),
    mend: ({ target }) => target.query("truncate public.t"),
  },
  {
    what: "other rows on the target, to be adopted",
    adopt: true,
    refusal: () => ({ code: "ERS-405", names: "public.t", remedy: "TRUNCATE public.t" }),
    prepare: ({ target }) => target.query("insert into t values (1, 'one'), (2, 'zwei')"),
    mend: ({ target }) => target.query("update t set v = 'two' where id = 2"),
  },
  {
    what: "a source role that does not own what it is to publish",
    roles: { source: "login replication" },
    refusal: ({ slot }) => ({ code: "ERS-304", names: slot, remedy: /create publication .* for table/ }),
    prepare: ({ source, name }) => source.query(`grant select on t to ${name}_s`),
    mend: ({ source, name }) =>
      source.query(`alter table t owner to ${name}_s; grant create on database ${source.name} to ${name}_s`),
  },
  {
    what: "a target role that may not write the table",
    roles: { target: "login" },
    refusal: () => ({ code: "ERS-304", names: "public.t", remedy: /GRANT .* ON public\.t TO/ }),
    prepare: ({ target, name }) =>
      target.query(
        `grant create on database ${target.name} to ${name}_t; grant usage on schema public to ${name}_t; grant select on t to ${name}_t`,
      ),
    mend: ({ target, name }) =>
      target.query(`grant select, insert, update, delete, truncate on t to ${name}_t`),
  },
];

test.concurrent.for(AT_COPY.map((one) => [one.what, one] as const))(
  "%s: refused, its rows stay as they are, and it works when that is mended",
  async ([, one]) => {
    await inWorld(one, async (world) => {
      const { target, config, name } = world;
      await one.prepare(world);
      const before = await rowVersions(target.url);
      const refusal = one.refusal(world);
      const adopt = one.adopt ?? false;
      for (let time = 1; time <= 2; time++)
        await expectStopped(runPipeline(config, name, { adopt }), refusal);
      if (!adopt) await expectRefused(syncTarget(commandOptions(config)), refusal);
      expect(await rowVersions(target.url)).toEqual(before);
      await one.mend(world);
      await expectGoesOn(world, adopt);
    });
  },
);

test("equal rows on the target are adopted as they are", async () => {
  await inWorld({}, async (world) => {
    const { source, target, config, name } = world;
    await target.query(ROWS);
    const before = await rowVersions(target.url);
    {
      await using running = runPipeline(config, name, { adopt: true });
      await caughtUp(source, running);
    }
    expect(await rowVersions(target.url)).toEqual(before);
    await expectGoesOn(world);
  });
});

const LATER: readonly (Case & { readonly verified?: boolean })[] = [
  {
    what: "a publication that was dropped behind our back",
    verified: true,
    refusal: ({ slot }) => ({ code: "ERS-505", names: slot, remedy: "erserver drop" }),
    prepare: ({ source, slot }) => source.query(`drop publication ${slot}`),
    mend: startOver,
  },
  {
    what: "the publication of tables without a key, dropped behind our back",
    verified: true,
    refusal: ({ slot }) => ({ code: "ERS-505", names: `${slot}_insert`, remedy: "erserver drop" }),
    prepare: ({ source, slot }) => source.query(`drop publication ${slot}_insert`),
    mend: startOver,
  },
  {
    what: "a publication that was altered behind our back to leave changes out",
    verified: true,
    refusal: ({ slot }) => ({ code: "ERS-505", names: slot, remedy: "erserver drop" }),
    prepare: ({ source, slot }) => source.query(`alter publication ${slot} set (publish = 'insert')`),
    mend: startOver,
  },
  {
    what: "a table that was taken out of our publication",
    verified: true,
    refusal: () => ({ code: "ERS-505", names: "public.t", remedy: /tables\.exclude.*TRUNCATE/ }),
    prepare: ({ source, slot }) => source.query(`alter publication ${slot} drop table t`),
    mend: startOver,
  },
  {
    what: "a table that was dropped on the source and made anew",
    verified: true,
    refusal: () => ({ code: "ERS-505", names: "public.t", remedy: "erserver drop" }),
    prepare: ({ source }) => source.query(`drop table t; ${TABLE}; insert into t values (9, 'anew')`),
    mend: startOver,
  },
  {
    what: "a slot that was dropped behind our back",
    verified: true,
    refusal: ({ slot }) => ({ code: "ERS-502", names: slot, remedy: "erserver drop" }),
    prepare: ({ source, slot }) => source.query(`select pg_drop_replication_slot('${slot}')`),
    mend: startOver,
  },
  {
    what: "a slot that was made anew",
    verified: true,
    refusal: ({ slot }) => ({ code: "ERS-504", names: slot, remedy: "erserver drop" }),
    prepare: async ({ source, slot }) => {
      await source.query(`select pg_drop_replication_slot('${slot}')`);
      await source.query("insert into t values (5, 'between')");
      await source.query(`select pg_create_logical_replication_slot('${slot}', 'pgoutput')`);
    },
    mend: startOver,
  },
  {
    what: "a schema erserver that a newer version has migrated",
    verified: true,
    refusal: ({ target }) => ({ code: "ERS-408", names: target.name, remedy: "Upgrade erserver" }),
    prepare: ({ target }) => target.query("insert into erserver.migration values ('9999_future.sql')"),
    mend: ({ target }) => target.query("delete from erserver.migration where name = '9999_future.sql'"),
  },
  {
    what: "a table that was dropped on the target",
    verified: true,
    refusal: () => ({
      code: "ERS-401",
      names: "public.t",
      remedy: "pg_dump --schema-only --table='public.t'",
    }),
    prepare: ({ target }) => target.query("alter table t rename to away"),
    mend: ({ target }) => target.query("alter table away rename to t"),
  },
];

test.concurrent.for(LATER.map((one) => [one.what, one] as const))(
  "%s: stops, takes nothing from the target, and its remedy works",
  async ([, one]) => {
    await inWorld(one, async (world) => {
      const { source, target, config, name } = world;
      await expectGoesOn(world);
      await one.prepare(world);
      await source.query("insert into t values (10, 'while it was wrong')");
      const facts = async (): Promise<unknown> => [
        await ourObjects(source.url),
        await ourObjects(target.url),
        await rowVersions(target.url),
        await recordedLsn(target.url),
      ];
      const before = await facts();
      const refusal = one.refusal(world);
      const options = commandOptions(config);
      await expectStopped(runPipeline(config, name), refusal);
      await expectRefused(initPipeline(options), refusal);
      await expectRefused(syncTarget(options), refusal);
      if (one.verified === true) await expectRefused(verifyTarget(options), refusal);
      if (refusal.code === "ERS-408") await expectRefused(dropPipeline(options), refusal);
      expect(await facts()).toEqual(before);
      await one.mend(world);
      if (one.mend === startOver) expect(await ourObjects(target.url)).toEqual([]);
      await source.query("delete from t where id = 9");
      await expectGoesOn(world);
    });
  },
);

test("another source than the registered one: refused, and nothing is made there", async () => {
  await inWorld({}, async (world) => {
    const { target, config, name } = world;
    await expectGoesOn(world);
    await using stranger = await freshDatabase(sharedCluster("source"));
    await stranger.query(`${TABLE}; insert into t values (100, 'of another')`);
    const wrong = testConfig(stranger.url, { [name]: target.url });
    const before = [await rowVersions(target.url), await ourObjects(target.url)];
    const refusal: Refusal = { code: "ERS-410", names: stranger.name, remedy: "Correct `source`" };
    await expectStopped(runPipeline(wrong, name), refusal);
    for (const command of [initPipeline, syncTarget, verifyTarget, dropPipeline])
      await expectRefused(command(commandOptions(wrong)), refusal);
    expect([await rowVersions(target.url), await ourObjects(target.url)]).toEqual(before);
    expect(await ourObjects(stranger.url)).toEqual([]);
    await world.source.query("delete from t where id = 9");
    await expectGoesOn({ ...world, config });
  });
});

test("a target that is the source by another name: refused before anything is made", async () => {
  await inWorld({}, async ({ source, name }) => {
    await source.query("truncate t");
    const alias = source.url.replace("127.0.0.1", "localhost");
    const config = testConfig(source.url, { [name]: alias });
    const refusal: Refusal = { code: "ERS-103", names: name, remedy: `\`targets.${name}\`` };
    await expectStopped(runPipeline(config, name), refusal);
    for (const command of [initPipeline, syncTarget])
      await expectRefused(command(commandOptions(config)), refusal);
    expect(await ourObjects(source.url)).toEqual([]);
  });
});

describe("while it runs", () => {
  test("a table that is swapped for another of its name stops it, though no change tells", async () => {
    await inWorld({}, async (world) => {
      const { source, target, config, name } = world;
      await using running = runPipeline(config, name);
      await caughtUp(source, running);
      const before = await rowVersions(target.url);
      await source.query(
        "create table anew (like t including all); insert into anew values (7, 'anew'); drop table t; alter table anew rename to t",
      );
      await expectStopped(running, {
        code: "ERS-505",
        names: "public.t",
        remedy: "erserver drop",
      });
      expect(await rowVersions(target.url)).toEqual(before);
      await startOver(world);
      await expectGoesOn(world);
    });
  });

  test("two tables that swap their names stop it, at once or at the next look, and both of its remedies work", async () => {
    await inWorld({ yaml: "tables: { include: [public.*] }" }, async (world) => {
      const { source, target, config, name } = world;
      const others = "create table u (like t including all); create table other (id int primary key)";
      for (const database of [source, target]) await database.query(others);
      await source.query("insert into u values (1, 'of u')");
      const swap = "alter table t rename to away; alter table u rename to t; alter table away rename to u";
      const refusal: Refusal = {
        code: "ERS-505",
        names: "public.t, public.u",
        remedy: /names back.*exclude, .*TRUNCATE public\.t, public\.u /,
      };
      for (const insert of ["", "insert into t values (5, 'of u'); insert into u values (6, 'of t')"]) {
        const running = runPipeline(config, name);
        await caughtUp(source, running);
        const before = await rowVersions(target.url);
        await source.query(`begin; ${swap}; ${insert}; commit`);
        await expectStopped(running, refusal);
        expect(await rowVersions(target.url)).toEqual(before);
        await expectRefused(syncTarget(commandOptions(config)), refusal);
        // Back again, and nothing is lost.
        await source.query(swap);
        await using again = runPipeline(config, name);
        await caughtUp(source, again);
        await expectEqualTables(source.url, target.url);
      }
      await source.query(swap);
      await expectRefused(syncTarget(commandOptions(config)), refusal);
      const without = testConfig(
        source.url,
        { [name]: target.url },
        "tables: { include: [public.*], exclude: [public.t, public.u] }",
      );
      await syncTarget(commandOptions(without));
      await target.query("truncate public.t, public.u");
      await expectGoesOn(world);
      await expectEqualTables(source.url, target.url);
    });
  });

  test("a partition that gives its name to another stops it at the first change of that", async () => {
    await inWorld({ yaml: "tables: { publish_via_partition_root: false }" }, async (world) => {
      const { source, target, config, name } = world;
      // Before 11 a partitioned table has no primary key, but its partitions may.
      const part =
        "create table part partition of parts for values from (0) to (10); alter table part add primary key (id)";
      for (const database of [source, target])
        await database.query(`create table parts (id int not null) partition by range (id); ${part}`);
      await source.query("insert into parts values (1)");
      await using running = runPipeline(config, name);
      await caughtUp(source, running);
      await source.query(`drop table part; ${part}; insert into parts values (2)`);
      await expectStopped(running, {
        code: "ERS-505",
        names: "public.part",
        remedy: /exclude, .*TRUNCATE public\.part /,
      });
      expect(await target.query("select id from parts")).toEqual([{ id: 1 }]);
    });
  });

  test("a publication that is dropped stops it before a change is passed over", async () => {
    await inWorld({}, async (world) => {
      const { source, target, config, name, slot } = world;
      // From 18 on a warning is all that tells it.
      await source.query(`alter database ${source.name} set client_min_messages = error`);
      await using running = runPipeline(config, name);
      await caughtUp(source, running);
      const before = await rowVersions(target.url);
      await source.query(`drop publication ${slot}`);
      await source.query("insert into t values (10, 'while it was wrong')");
      await expectStopped(running, { code: "ERS-505", names: slot, remedy: "erserver drop" });
      expect(await rowVersions(target.url)).toEqual(before);
      await startOver(world);
      await expectGoesOn(world);
    });
  });
});

test.concurrent.for([
  ["an unknown key", "tabels: {}", "ERS-103", "tabels", "tables"],
  ["a wrong type", "timeout: [1]", "ERS-103", "timeout", ""],
] as const)("%s in the configuration is refused with its place", ([, yaml, code, names]) => {
  let error: unknown;
  try {
    testConfig("postgres://a@h/d", { london: "postgres://a@k/d" }, yaml);
  } catch (thrown) {
    error = thrown;
  }
  expect(error).toMatchObject({ code, remedy: expect.stringMatching(/./) as string });
  expect((error as Error).message).toMatch(/erserver\.yaml:4:\d+/);
  expect((error as Error).message).toContain(names);
});
