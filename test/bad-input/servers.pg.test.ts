import { execFile } from "node:child_process";
import { rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Cluster, startCluster } from "../../src/demo/cluster.ts";
import { dropPipeline } from "../../src/pipeline/drop.ts";
import { initPipeline } from "../../src/pipeline/init.ts";
import { syncTarget } from "../../src/pipeline/sync.ts";
import { slotNameFor } from "../../src/quote/slot-name.ts";
import { verifyTarget } from "../../src/verify/verify.ts";
import {
  commandOptions,
  expectOffline,
  expectRefused,
  expectStopped,
  ourObjects,
  querySession,
  type Refusal,
  restartableDatabase,
  rowVersions,
} from "../support/bad-input.ts";
import { freshDatabase, sharedCluster, testMajor } from "../support/clusters.ts";
import { expectEqualTables } from "../support/compare.ts";
import { caughtUp, runPipeline, testConfig } from "../support/pipeline-context.ts";
import { until } from "../support/wait.ts";

const TABLE = "create table t (id int primary key, v text)";

let own: Cluster;

beforeAll(async () => {
  own = await startCluster({
    major: testMajor("source"),
    authentication: "scram-sha-256",
    password: "superuser's",
    // Small segments are soon removed; they came with 11, and what removes them under a slot with 13.
    ...(testMajor("source") < 11
      ? {}
      : { initdb: ["--wal-segsize=1"], settings: { min_wal_size: "2MB", max_wal_size: "8MB" } }),
  });
});

afterAll(() => own.dispose());

const administer = (sql: string): Promise<unknown> => querySession(own.url(), sql);

/** What makes a standby; the content is for those before 12. */
const standbyFile = (): string =>
  path.join(own.dataDirectory, own.major >= 12 ? "standby.signal" : "recovery.conf");

async function restartWith(setting: string): Promise<void> {
  await administer(`alter system ${setting}`);
  await own.restart();
}

interface Outage {
  readonly what: string;
  readonly refusal: Refusal;
  readonly url?: (database: string) => string;
  readonly begin: (database: string) => Promise<unknown>;
  readonly end: (database: string) => Promise<unknown>;
}

const asReplicator = (database: string): string =>
  `postgres://replicator:wrong-secret@127.0.0.1:${own.port}/${database}`;

const OUTAGES: readonly Outage[] = [
  {
    what: "is down",
    refusal: { code: "ERS-201", names: "@127.0.0.1:", remedy: "Start the server" },
    begin: () => own.stop(),
    end: () => own.start(),
  },
  {
    what: "has another password",
    refusal: { code: "ERS-202", names: "replicator@127.0.0.1:", remedy: ".pgpass" },
    url: asReplicator,
    begin: async () => {
      // It owns what was made for an earlier case: it stays as long as the server.
      await administer(
        "do $$ begin create role replicator superuser login; exception when duplicate_object then null; end $$",
      );
      await administer("alter role replicator password 'right'");
    },
    end: () => administer("alter role replicator password 'wrong-secret'"),
  },
  {
    what: "is a standby",
    refusal: { code: "ERS-307", names: "127.0.0.1:", remedy: "target_session_attrs=primary" },
    begin: async () => {
      await own.stop();
      await writeFile(standbyFile(), "standby_mode = on\n");
      await own.start();
    },
    end: async () => {
      await own.stop();
      await rm(standbyFile());
      await own.start();
    },
  },
  {
    what: "does not let the role connect to the database",
    refusal: {
      code: "ERS-205",
      names: "visitor@127.0.0.1:",
      remedy: /GRANT CONNECT ON DATABASE .* TO "visitor";/,
    },
    url: (database) => asReplicator(database).replace("replicator", "visitor"),
    begin: async (database) => {
      await administer("do $$ begin create role visitor; exception when duplicate_object then null; end $$");
      await administer("alter role visitor nosuperuser login password 'wrong-secret'");
      await administer(`revoke connect on database ${database} from public`);
    },
    // At once: the second is for all that comes after connecting.
    end: (database) =>
      administer(`grant connect on database ${database} to visitor; alter role visitor superuser`),
  },
  {
    what: "does not have the database",
    refusal: { code: "ERS-203", names: "127.0.0.1:", remedy: "createdb" },
    begin: (database) => administer(`alter database ${database} rename to away`),
    end: (database) => administer(`alter database away rename to ${database}`),
  },
];

test.for(
  (["source", "target"] as const).flatMap((side) =>
    OUTAGES.map((outage) => [side, outage.what, outage] as const),
  ),
)("a %s that %s: offline, and it goes on by itself when that is mended", async ([side, , outage]) => {
  await using mine = await restartableDatabase(own);
  await using other = await freshDatabase(sharedCluster(side === "source" ? "target" : "source"));
  for (const database of [mine, other]) await database.query(TABLE);
  const [source, target] = side === "source" ? [mine, other] : [other, mine];
  await source.query("insert into t values (1, 'one')");
  const url = outage.url?.(mine.name) ?? mine.url;
  const [sourceUrl, targetUrl] = side === "source" ? [url, target.url] : [source.url, url];
  const name = other.name;
  const config = testConfig(sourceUrl, { [name]: targetUrl });
  const options = commandOptions(config);
  await outage.begin(mine.name);
  try {
    // Beside a replicator that tries again and again, init and drop may hear of it instead.
    for (const command of [initPipeline, syncTarget, verifyTarget, dropPipeline])
      await expectRefused(command(options), outage.refusal);
    await using running = runPipeline(config, name);
    await expectOffline(running, side, outage.refusal);
    expect(JSON.stringify(running.pipeline.status.error)).not.toContain("wrong-secret");
    expect(await ourObjects(other.url)).toEqual([]);
    await outage.end(mine.name);
    await caughtUp(source, running);
    await expectEqualTables(source.url, target.url);
  } finally {
    await own.start();
  }
});

test("a source whose WAL senders are all taken: offline, and it goes on by itself when one is free", async () => {
  await restartWith("set max_wal_senders = 1");
  await using source = await restartableDatabase(own);
  await using target = await freshDatabase(sharedCluster("target"));
  for (const database of [source, target]) await database.query(TABLE);
  const taker = new pg.Client({ connectionString: source.url, replication: "database" } as pg.ClientConfig);
  try {
    await taker.connect();
    await using running = runPipeline(testConfig(source.url, { [source.name]: target.url }), source.name);
    await expectOffline(running, "source", {
      code: "ERS-206",
      names: "127.0.0.1:",
      remedy: "max_wal_senders",
    });
    await taker.end();
    await caughtUp(source, running);
  } finally {
    await taker.end();
    await restartWith("reset max_wal_senders");
  }
});

interface Setting {
  readonly what: string;
  readonly refusal: Refusal;
  readonly begin: () => Promise<unknown>;
  readonly end: () => Promise<unknown>;
}

const SETTINGS: readonly Setting[] = [
  {
    what: "wal_level = replica",
    refusal: { code: "ERS-301", names: "127.0.0.1:", remedy: "ALTER SYSTEM SET wal_level = logical" },
    begin: () => restartWith("set wal_level = 'replica'"),
    end: () => restartWith("set wal_level = logical"),
  },
  {
    what: "no free slot",
    refusal: { code: "ERS-303", names: "slot", remedy: "max_replication_slots" },
    begin: async () => {
      await restartWith("set max_replication_slots = 1");
      await administer("select pg_create_physical_replication_slot('other')");
    },
    end: () => administer("select pg_drop_replication_slot('other')"),
  },
];

test.for(SETTINGS.map((one) => [one.what, one] as const))(
  "a source with %s: refused, and it works when that is mended",
  async ([, { refusal, begin, end }]) => {
    await using source = await restartableDatabase(own);
    await using target = await freshDatabase(sharedCluster("target"));
    await source.query(`${TABLE}; insert into t values (1, 'one')`);
    await target.query(TABLE);
    const config = testConfig(source.url, { [source.name]: target.url }, "capture: wal");
    await begin();
    await expectStopped(runPipeline(config, source.name), refusal);
    await expectRefused(initPipeline(commandOptions(config)), refusal);
    expect(await rowVersions(target.url)).toEqual([]);
    expect([await ourObjects(source.url), await ourObjects(target.url)]).toEqual([[], []]);
    await end();
    await using running = runPipeline(config, source.name);
    await caughtUp(source, running);
    await expectEqualTables(source.url, target.url);
  },
);

test("a target that was made from a backup of the source is another database, though all its names are the same", async () => {
  const major = testMajor("source");
  await using source = await startCluster({ major });
  await querySession(source.url(), `${TABLE}; insert into t values (1, 'one')`);
  await source.stop();
  const dataDirectory = path.join(source.folder, "backup");
  await promisify(execFile)("cp", ["-a", source.dataDirectory, dataDirectory]);
  await source.start();
  await using target = await startCluster({ major, dataDirectory });
  await querySession(target.url(), "truncate t");
  await syncTarget(commandOptions(testConfig(source.url(), { backup: target.url() })));
  await expectEqualTables(source.url(), target.url());
});

test.runIf(testMajor("source") >= 13)(
  "a slot whose WAL the source has removed: stops, and starting over works",
  async () => {
    await restartWith("reset max_replication_slots");
    await using source = await restartableDatabase(own);
    await using target = await freshDatabase(sharedCluster("target"));
    for (const database of [source, target]) await database.query(TABLE);
    const { name } = source;
    const config = testConfig(source.url, { [name]: target.url });
    const options = commandOptions(config);
    await syncTarget(options);
    await administer("alter system set max_slot_wal_keep_size = '1MB'");
    own.reload();
    await source.query("insert into t values (1, 'one')");
    const isLost = async (): Promise<boolean> => {
      await source.query(
        "insert into t values (2, repeat('x', 4000)) on conflict (id) do update set v = excluded.v",
      );
      await administer("select pg_switch_wal()");
      await administer("checkpoint");
      return (
        (
          await source.query(
            `select from pg_replication_slots where slot_name = '${slotNameFor(name)}' and wal_status = 'lost'`,
          )
        ).length > 0
      );
    };
    await until(isLost, { what: "the slot to be lost" });
    const refusal: Refusal = {
      code: "ERS-503",
      names: slotNameFor(name),
      remedy: /max_slot_wal_keep_size.*erserver drop/,
    };
    await expectStopped(runPipeline(config, name), refusal);
    for (const command of [initPipeline, syncTarget, verifyTarget])
      await expectRefused(command(options), refusal);
    expect(await rowVersions(target.url)).toEqual([]);
    await administer("alter system reset max_slot_wal_keep_size");
    own.reload();
    await dropPipeline(options);
    expect([await ourObjects(source.url), await ourObjects(target.url)]).toEqual([[], []]);
    await syncTarget(options);
    await expectEqualTables(source.url, target.url);
  },
);
