import { randomInt } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { Applier } from "../../src/apply/applier.ts";
import type { RowKeys } from "../../src/apply/footprint.ts";
import { rowKeysOf } from "../../src/apply/row-keys.ts";
import { planTable, type TablePlan } from "../../src/apply/table-plan.ts";
import { openTargetSession, openWorkerSession } from "../../src/apply/target-session.ts";
import type { RowChange } from "../../src/change/change.ts";
import type { Group } from "../../src/change/group.ts";
import { type Lsn, ZERO_LSN } from "../../src/change/lsn.ts";
import type { Relation } from "../../src/change/relation.ts";
import { type Conninfo, parseConninfo } from "../../src/config/conninfo.ts";
import { systemEnvironment } from "../../src/config/environment.ts";
import { blockersOf } from "../../src/postgres/advisory-lock.ts";
import { readTables } from "../../src/postgres/catalog.ts";
import { type ControlSession, connectControl } from "../../src/postgres/connect.ts";
import { readConstraints } from "../../src/postgres/constraints.ts";
import { migrate } from "../../src/store/migrate.ts";
import type { WireConnection } from "../../src/wire/connection.ts";
import { type FreshDatabase, freshDatabase, sharedCluster } from "../support/clusters.ts";
import { rowChange } from "../support/row-changes.ts";
import { SeededRandom } from "../support/soak-random.ts";
import { until } from "../support/wait.ts";

const SEED = Number(process.env["ERSERVER_TEST_SEED"] ?? randomInt(1_000_000));
const PIPELINE = "parallel";
const WORKERS = 4;

/** Each group writes its number into `log`; `t` has a key, a unique value and another. */
const SCHEMA = `
  create table t (id int primary key, u text unique, v text);
  create table log (n int primary key);
  create table child (id int primary key, parent int references t deferrable)`;

const SESSION = { applicationName: "erserver parallel test", timeoutMs: 20_000 };

const relation = (id: number, name: string, columns: readonly (readonly [string, number])[]): Relation => ({
  id,
  schema: "public",
  name,
  replicaIdentity: "default",
  columns: columns.map(([column, typeOid], at) => ({
    name: column,
    typeOid,
    typeModifier: -1,
    partOfKey: at === 0,
  })),
});
const T = relation(1, "t", [
  ["id", 23],
  ["u", 25],
  ["v", 25],
]);
const LOG = relation(2, "log", [["n", 23]]);
const CHILD = relation(3, "child", [
  ["id", 23],
  ["parent", 23],
]);

let commitLsn = 1000n;

/** One transaction. */
function groupOf(number: number, changes: readonly RowChange[]): Group {
  const all = [...changes, rowChange("insert", LOG, undefined, [String(number)])];
  const at = (commitLsn += 16n) as Lsn;
  return {
    changes: all,
    members: [
      {
        transaction: { xid: number, commitLsn: at, endLsn: (at + 8n) as Lsn, commitTime: Date.now() * 1000 },
        end: all.length,
      },
    ],
    begins: true,
    ends: true,
    size: 100 * all.length,
  };
}

interface Target extends AsyncDisposable {
  readonly database: FreshDatabase;
  readonly conninfo: Conninfo;
  readonly control: ControlSession;
  readonly applier: Applier;
  readonly workers: readonly WireConnection[];
  /** Applies all, each given ahead as soon as it is wanted. */
  apply(groups: readonly Group[], gives?: (index: number) => Promise<void>): Promise<void>;
}

async function openTarget(
  options: { keysOf?: (plan: TablePlan) => RowKeys; enforcesForeignKeys?: boolean; far?: boolean } = {},
): Promise<Target> {
  const database = await freshDatabase(sharedCluster("target"));
  await database.query(SCHEMA);
  const conninfo = parseConninfo(database.url, systemEnvironment());
  const control = await connectControl(conninfo, SESSION);
  await migrate(control, database.name, "target");
  await database.query(
    "insert into erserver.pipeline (name, source_system, source_database, slot) values ($1, 1, 'x', 'x')",
    [PIPELINE],
  );
  await database.query("insert into erserver.progress (pipeline, lsn) values ($1, '0/0')", [PIPELINE]);
  const [server] = await database.query<{ version: number }>(
    "select current_setting('server_version_num')::int as version",
  );
  const version = server?.version ?? 0;
  const session = { ...SESSION, conninfo, pipeline: PIPELINE, version };
  const { connection } = await openTargetSession({ ...session, ownBackends: new Set() });
  const tables = await readTables(control, version);
  const { enforcesForeignKeys = false, far = false } = options;
  const constraints = await readConstraints(control, version, !enforcesForeignKeys);
  const asRole = async (writer: WireConnection): Promise<void> => {
    if (enforcesForeignKeys) await writer.query("set session_replication_role = origin");
  };
  await asRole(connection);
  const workers: WireConnection[] = [];
  const applier = new Applier({
    connection,
    far,
    pipeline: PIPELINE,
    progressLsn: ZERO_LSN,
    planFor: async (described) =>
      planTable({
        relation: described,
        table: {
          columns: described.columns.map(({ name }) => name),
          computed: [],
          columnList: false,
          sharedBy: 1,
          target: { schema: "public", name: described.name },
          publishes: "all",
        },
        target: tables.find(({ name }) => name === described.name),
        sourceTypes: new Map(),
        definitionOf: () => undefined,
        missingColumn: "stop",
      }),
    copies: { lsnOf: () => ZERO_LSN, newestLsn: ZERO_LSN },
    conflict: "source-wins",
    binary: false,
    write: "sets",
    snapshotAt: () => undefined,
    parallel: {
      workers: WORKERS,
      connect: async () => {
        const worker = await openWorkerSession(session);
        await asRole(worker);
        workers.push(worker);
        return worker;
      },
      keysOf: options.keysOf ?? ((plan) => rowKeysOf(plan, constraints)),
      blockersOf: (pid) => blockersOf(control, pid),
      onRefused: (reason) => {
        throw reason;
      },
    },
  });
  const apply: Target["apply"] = async (groups, gives) => {
    let given = 0;
    for (const [index, group] of groups.entries()) {
      given = Math.max(given, index + 1);
      await applier.apply(group, async () => {
        const next = given++;
        await gives?.(next);
        return groups[next];
      });
    }
  };
  return {
    database,
    conninfo,
    control,
    applier,
    workers,
    apply,
    [Symbol.asyncDispose]: async () => {
      await applier[Symbol.asyncDispose]();
      await connection.end();
      await control.end();
      await database[Symbol.asyncDispose]();
    },
  };
}

/** Rows of the source by key. */
type Rows = Map<string, readonly [u: string | null, v: string]>;

/** Random changes that the source can make in one transaction, over few keys, so that groups meet, or over many, so that few do. */
function randomGroup(random: SeededRandom, rows: Rows, number: number, keys: number): Group {
  const changes: RowChange[] = [];
  const unique = (id: string): string | null => {
    const value = random.chance(0.3) ? null : `u${random.integer(1, keys)}`;
    const taken = [...rows].some(([key, [u]]) => key !== id && u !== null && u === value);
    return taken ? null : value;
  };
  for (let count = random.integer(1, 12); count > 0; count--) {
    const id = String(random.integer(1, keys));
    const row = rows.get(id);
    const v = `v${number}.${count}`;
    if (row === undefined) {
      const u = unique(id);
      rows.set(id, [u, v]);
      changes.push(rowChange("insert", T, undefined, [id, u, v]));
    } else if (random.chance(0.25)) {
      rows.delete(id);
      changes.push(rowChange("delete", T, id, undefined));
    } else {
      const to = random.chance(0.2) ? String(random.integer(1, keys)) : id;
      if (to !== id && rows.has(to)) continue;
      const u = random.chance(0.5) ? row[0] : unique(id);
      rows.delete(id);
      rows.set(to, [u, v]);
      changes.push(rowChange("update", T, to === id ? undefined : id, [to, u, v]));
    }
  }
  return groupOf(number, changes);
}

/** All rows of one of three blocks, which no other group touches: more changes than go to a far target with their COMMIT by themselves. */
function largeGroup(random: SeededRandom, rows: Rows, number: number): Group {
  const first = 100_000 * random.integer(1, 3);
  const changes = Array.from({ length: 1_001 }, (_, at) => {
    const id = String(first + at);
    const kind = rows.has(id) ? "update" : "insert";
    rows.set(id, [null, `v${number}`]);
    return rowChange(kind, T, undefined, [id, null, `v${number}`]);
  });
  return groupOf(number, changes);
}

/** Looks all the time, until it is stopped, whether groups were committed in order. Resolves with how many looks there were. */
function readOrder(database: FreshDatabase, stopping: AbortSignal): Promise<number> {
  const read = async (): Promise<number> => {
    const session = await database.connect();
    let looks = 0;
    for (; !stopping.aborted; looks++) {
      const { rows } = await session.query<{ rows: number; last: number }>(
        "select count(*)::int as rows, coalesce(max(n), 0) as last from log",
      );
      expect(rows[0]?.rows).toBe(rows[0]?.last);
    }
    return looks;
  };
  return read();
}

/** Takes locks on rows of the target for a moment, so that sessions wait in ever other places. */
async function disturb(database: FreshDatabase, random: SeededRandom, stopping: AbortSignal): Promise<void> {
  const session = await database.connect();
  while (!stopping.aborted) {
    await session.query("begin");
    await session.query("select from t where id % 7 = $1 for update skip locked", [random.integer(0, 6)]);
    await sleep(random.integer(0, 20));
    await session.query("commit");
    await sleep(random.integer(0, 10));
  }
}

const contents = async (database: FreshDatabase): Promise<Rows> => {
  const rows = await database.query<{ id: number; u: string | null; v: string }>(
    "select * from t where id < 1000000 order by id",
  );
  return new Map(rows.map(({ id, u, v }) => [String(id), [u, v]]));
};

const sorted = (rows: Rows): Rows => new Map([...rows].toSorted(([a], [b]) => Number(a) - Number(b)));

test.for([
  ["few keys: nearly all groups meet", 15, false],
  ["some keys", 300, false],
  ["many keys: few groups meet", 20_000, false],
  ["the target is far: each follows the other without waiting for an answer", 300, true],
] as const)(
  "groups written at the same time leave what the source has, and are seen in its order: %s",
  { timeout: 120_000 },
  async ([, keys, far], { annotate }) => {
    await annotate(`ERSERVER_TEST_SEED=${SEED}`);
    await using target = await openTarget({ far });
    const { database } = target;
    // Or this would show nothing.
    let number = far ? 0 : await openWorkers(target);
    const random = new SeededRandom(SEED + keys);
    const stopping = new AbortController();
    const order = readOrder(database, stopping.signal);
    const disturbing = disturb(database, random.fork(), stopping.signal);
    const rows: Rows = new Map();
    try {
      for (let round = 0; round < 8; round++) {
        const share = far ? [0.1, 0.9][round % 2] : 0;
        const groups = Array.from({ length: 50 }, () =>
          random.chance(share ?? 0)
            ? largeGroup(random, rows, ++number)
            : randomGroup(random, rows, ++number, keys),
        );
        await target.apply(groups);
        expect(await contents(database)).toEqual(sorted(rows));
      }
    } finally {
      stopping.abort();
    }
    expect(await order).toBeGreaterThan(0);
    await disturbing;
    const [progress] = await database.query(
      "select transactions::int, conflicts::int from erserver.progress",
    );
    expect(progress).toEqual({ transactions: number, conflicts: 0 });
  },
);

test("what is on its way to a far target behind a group that fails is written again, in order", async () => {
  await using target = await openTarget({ far: true });
  const { database } = target;
  let number = 0;
  const ids = Array.from({ length: 40 }, (_, at) => at + 1);
  await target.apply(ids.map((id) => groupOf(++number, [insert(id)])));
  await database.query("delete from t where id in (7, 8, 30)");
  await target.apply(ids.map((id) => groupOf(++number, [update(id, null, "a"), update(id, null, "b")])));
  expect(await contents(database)).toEqual(new Map(ids.map((id) => [String(id), [null, "b"]])));
  const [progress] = await database.query("select transactions::int, conflicts::int from erserver.progress");
  expect(progress).toEqual({ transactions: number, conflicts: 3 });
  const [log] = await database.query("select count(*)::int, max(n) from log");
  expect(log).toEqual({ count: number, max: number });
});

const insert = (id: number, u: string | null = null, v = "v"): RowChange =>
  rowChange("insert", T, undefined, [String(id), u, v]);
const update = (id: number, u: string | null, v: string): RowChange =>
  rowChange("update", T, undefined, [String(id), u, v]);

/** Until the workers are open nothing is written at the same time. */
async function openWorkers(target: Target): Promise<number> {
  let number = 0;
  await until(
    async () => {
      await target.apply(Array.from({ length: 8 }, () => groupOf(++number, [insert(1_000_000 + number)])));
      return target.workers.length === WORKERS - 1;
    },
    { what: "the workers" },
  );
  return number;
}

/** Applies groups while a session has a row of the first of them; resolves when they have been, with what was written at the same time. */
async function heldUp(
  target: Target,
  rowId: number,
  groups: readonly Group[],
  blocked: number,
  gives?: (index: number) => Promise<void>,
): Promise<void> {
  const locker = await target.database.connect();
  await locker.query("begin");
  await locker.query("select from t where id = $1 for update", [rowId]);
  const applied = target.apply(groups, gives);
  applied.catch(() => undefined);
  await until(
    async () => {
      const open = await target.database.query(
        "select from pg_stat_activity where application_name = $1 and state like 'idle in transaction%' and datname = current_database()",
        [SESSION.applicationName],
      );
      return open.length >= blocked;
    },
    { what: `${blocked} groups written and not committed` },
  );
  expect(
    await target.database.query("select from log where n >= $1", [groups[0]?.members[0]?.transaction.xid]),
  ).toEqual([]);
  await locker.query("commit");
  await applied;
}

describe("several sessions", () => {
  test("groups that touch no row in common are written while the first waits, and none is seen before it", async () => {
    await using target = await openTarget();
    const from = await openWorkers(target);
    await target.apply([groupOf(from + 1, [insert(1), insert(2)])]);
    const groups = [
      groupOf(from + 2, [update(1, "a", "new")]),
      groupOf(from + 3, [insert(3)]),
      groupOf(from + 4, [insert(4)]),
    ];
    await heldUp(target, 1, groups, 2);
    const rows = await contents(target.database);
    expect([rows.get("1"), rows.get("3"), rows.get("4")]).toEqual([
      ["a", "new"],
      [null, "v"],
      [null, "v"],
    ]);
  });

  test("when a group fails those behind it are taken back and written again: nothing twice, nothing lost, the conflict counted once", async () => {
    await using target = await openTarget();
    const from = await openWorkers(target);
    await target.apply([groupOf(from + 1, [insert(1)])]);
    // In the way of the second group.
    await target.database.query("insert into t values (3, null, 'of the target')");
    const groups = [
      groupOf(from + 2, [update(1, null, "new")]),
      groupOf(from + 3, [insert(3), insert(30)]),
      groupOf(from + 4, [insert(4)]),
      groupOf(from + 5, [update(3, null, "newer")]),
    ];
    await heldUp(target, 1, groups, 1);
    const rows = await contents(target.database);
    expect([rows.get("3"), rows.get("30"), rows.get("4")]).toEqual([
      [null, "newer"],
      [null, "v"],
      [null, "v"],
    ]);
    expect(
      await target.database.query(
        "select transactions::int, conflicts::int, replays::int from erserver.progress",
      ),
    ).toEqual([{ transactions: from + 5, conflicts: 1, replays: 1 }]);
  });

  test("a unique value that one group gives up and the next takes needs no place in the keys", async () => {
    await using target = await openTarget();
    const from = await openWorkers(target);
    await target.apply([groupOf(from + 1, [insert(1, "a"), insert(2)])]);
    const groups = [
      groupOf(from + 2, [update(1, "b", "v")]),
      groupOf(from + 3, [update(2, "a", "v")]),
      groupOf(from + 4, [insert(4, "c")]),
    ];
    // The second waits for the first in the server, or fails: both lead to the same.
    await heldUp(target, 1, groups, 1);
    const rows = await contents(target.database);
    expect([rows.get("1"), rows.get("2"), rows.get("4")]).toEqual([
      ["b", "v"],
      ["a", "v"],
      ["c", "v"],
    ]);
  });

  test("where foreign keys are enforced, a row waits for the one that it refers to, and others do not", async () => {
    await using target = await openTarget({ enforcesForeignKeys: true });
    const from = await openWorkers(target);
    await target.apply([groupOf(from + 1, [insert(1), insert(2)])]);
    const childOf = (id: number, parent: number): RowChange =>
      rowChange("insert", CHILD, undefined, [String(id), String(parent)]);
    const groups = [
      groupOf(from + 2, [insert(3), update(1, null, "new")]),
      groupOf(from + 3, [childOf(20, 2)]),
      groupOf(from + 4, [childOf(21, 2), childOf(22, 2)]),
      groupOf(from + 5, [childOf(30, 3)]),
    ];
    await heldUp(target, 1, groups, 2);
    expect(await target.database.query("select * from child order by id")).toEqual([
      { id: 20, parent: 2 },
      { id: 21, parent: 2 },
      { id: 22, parent: 2 },
      { id: 30, parent: 3 },
    ]);
    expect(await target.database.query("select replays::int from erserver.progress")).toEqual([
      { replays: 0 },
    ]);
  });

  test("a group that waits for a row of one behind it, which the keys did not show, is let through", async () => {
    const blind = ({ target: { oid } }: TablePlan): RowKeys => ({
      table: oid,
      by: "keys",
      own: [],
      references: [],
    });
    await using target = await openTarget({ keysOf: blind });
    const from = await openWorkers(target);
    await target.apply([groupOf(from + 1, [insert(1), insert(2)])]);
    const groups = [
      // Behind the lock; then it needs the row that the next has by then.
      groupOf(from + 2, [update(1, null, "first"), update(2, null, "first")]),
      groupOf(from + 3, [update(2, null, "second")]),
      groupOf(from + 4, [insert(4)]),
      groupOf(from + 5, [insert(5)]),
    ];
    // The last comes when those before it have been taken back, and must not be written in their place.
    await heldUp(target, 1, groups, 2, async (index) => {
      if (index === 3) await sleep(3_500);
    });
    const rows = await contents(target.database);
    expect([rows.get("1"), rows.get("2"), rows.get("4"), rows.get("5")]).toEqual([
      [null, "first"],
      [null, "second"],
      [null, "v"],
      [null, "v"],
    ]);
  });

  test("whoever takes the pipeline over ends the sessions that its predecessor left behind", async () => {
    await using target = await openTarget();
    await openWorkers(target);
    const pids = target.workers.map(({ backendPid }) => backendPid);
    const [leader] = await target.database.query<{ pid: number }>(
      "select pid from pg_stat_activity where application_name = $1 and datname = current_database() and not pid = any ($2::int[]) and pid in (select pid from pg_locks where locktype = 'advisory')",
      [SESSION.applicationName, pids],
    );
    await target.database.query("select pg_terminate_backend($1)", [leader?.pid]);
    const options = { ...SESSION, conninfo: target.conninfo, pipeline: PIPELINE, version: 100_000 };
    const successor = await until(
      () => openTargetSession({ ...options, ownBackends: new Set() }).catch(() => undefined),
      { what: "the lock" },
    );
    expect(
      await target.database.query("select from pg_stat_activity where pid = any ($1::int[])", [pids]),
    ).toEqual([]);
    await successor.connection.end();
  });
});
