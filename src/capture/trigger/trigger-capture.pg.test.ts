import { afterEach, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { type FreshDatabase, freshDatabase, sharedCluster } from "../../../test/support/clusters.ts";
import { testConfig } from "../../../test/support/pipeline-context.ts";
import { until } from "../../../test/support/wait.ts";
import { type Change, RowChange } from "../../change/change.ts";
import { type Lsn, ZERO_LSN } from "../../change/lsn.ts";
import type { Relation } from "../../change/relation.ts";
import type { ChangeSink } from "../../change/sink.ts";
import type { Transaction } from "../../change/transaction.ts";
import { COLUMN_NULL, TupleReader } from "../../change/tuple.ts";
import { type CatalogTable, readTables } from "../../postgres/catalog.ts";
import { connectControl, type ControlSession, connectWire } from "../../postgres/connect.ts";
import { quoteIdent, quoteQualified } from "../../quote/ident.ts";
import { migrate } from "../../store/migrate.ts";
import type { WireConnection } from "../../wire/connection.ts";
import { type CapturedTable, captureTables, recordAllRows, type TableToCapture } from "./captured-tables.ts";
import type { FollowedTable } from "./changes-query.ts";
import { parseSnapshot } from "./snapshot.ts";
import { TriggerCapture } from "./trigger-capture.ts";

const OPTIONS = { applicationName: "erserver test", timeoutMs: 30_000 };

type Row = readonly (string | null)[];

/** A target that is as strict as can be: an insert finds no row, an update and a delete find one. */
class StrictTarget implements ChangeSink {
  /** By table, then by the text of the key. */
  readonly tables = new Map<string, Map<string, Row>>();
  readonly keys: ReadonlyMap<string, readonly number[]>;
  /** Called behind every commit. */
  onCommit: () => void = () => {};
  transactions = 0;
  idleLsn: Lsn = ZERO_LSN;
  readonly full = false;
  readonly mayCut = true;
  #open: Change[] = [];

  constructor(keys: ReadonlyMap<string, readonly number[]>) {
    this.keys = keys;
  }

  get completeLsn(): Lsn {
    return this.idleLsn;
  }

  begin(): void {
    this.#open = [];
  }

  change(change: Change): void {
    this.#open.push(change);
  }

  commit({ endLsn }: Transaction): void {
    for (const change of this.#open) this.#apply(change);
    this.#open = [];
    this.transactions++;
    this.idleLsn = endLsn;
    this.onCommit();
  }

  idle(lsn: Lsn): void {
    this.idleLsn = lsn;
  }

  cut(): boolean {
    return true;
  }

  whenRoom(): Promise<void> {
    return Promise.resolve();
  }

  streamStart(): void {
    throw new Error("nothing is in progress here");
  }
  streamStop(): void {}
  streamCommit(): void {}
  streamAbort(): void {}

  rows(table: string): Map<string, Row> {
    let rows = this.tables.get(table);
    if (rows === undefined) {
      rows = new Map();
      this.tables.set(table, rows);
    }
    return rows;
  }

  #apply(change: Change): void {
    if (!(change instanceof RowChange)) {
      for (const { name } of change.relations) this.rows(name).clear();
      return;
    }
    const rows = this.rows(change.relation.name);
    const image = readRow(change, change.kind === "delete" ? change.oldStart : change.newStart);
    const key = JSON.stringify(this.keys.get(change.relation.name)?.map((index) => image[index]));
    if (rows.has(key) === (change.kind === "insert")) throw new Error(`${change.kind} of ${key}`);
    if (change.kind === "delete") rows.delete(key);
    else rows.set(key, image);
  }
}

function readRow({ bytes }: RowChange, start: number): Row {
  const reader = new TupleReader().reset(bytes, start);
  return Array.from({ length: reader.columns }, () => {
    reader.next();
    if (reader.kind === COLUMN_NULL) return null;
    return bytes.toString("utf8", reader.start, reader.start + reader.length);
  });
}

interface Followed {
  readonly target: StrictTarget;
  readonly capture: TriggerCapture;
  readonly captured: readonly CapturedTable[];
}

describe("trigger capture", () => {
  let source: FreshDatabase;
  let control: ControlSession;

  beforeEach(async () => {
    source = await freshDatabase(sharedCluster("source"));
    control = await connectControl(conninfo(), OPTIONS);
    await migrate(control, source.name, "source");
  });

  afterEach(async () => {
    await control.end();
    await source[Symbol.asyncDispose]();
  });

  const conninfo = () => testConfig(source.url, { other: "postgres://nobody@127.0.0.1:1/other" }).source;

  const wire = async (): Promise<WireConnection & AsyncDisposable> => {
    const connection = await connectWire(conninfo(), OPTIONS);
    return Object.assign(connection, { [Symbol.asyncDispose]: () => connection.end() });
  };

  const catalog = async (): Promise<CatalogTable[]> => {
    const [row] = await control.query("select current_setting('server_version_num') as version");
    return readTables(control, Number(row?.["version"]));
  };

  /** Every table that is no partition, with the triggers on it and its partitions. */
  async function wanted(columns: Readonly<Record<string, string[]>> = {}): Promise<TableToCapture[]> {
    const tables = await catalog();
    return tables
      .filter(({ root }) => root === undefined)
      .map((table) => ({
        table,
        relations: [
          { ...table, role: table.partitioned ? ("root" as const) : ("table" as const) },
          ...tables
            .filter(({ root }) => root?.name === table.name)
            .map((part) => ({ ...part, role: part.partitioned ? ("branch" as const) : ("leaf" as const) })),
        ],
        key: table.uniqueKeys[0] as string[],
        ...(columns[table.name] === undefined ? {} : { columns: columns[table.name] as string[] }),
      }));
  }

  /** Copies everything as of one snapshot, as a first copy would, and follows from there. */
  async function follow(
    columns: Readonly<Record<string, string[]>> = {},
    rewrites: readonly string[] = [],
  ): Promise<Followed> {
    const wishes = await wanted(columns);
    const captured = await captureTables(control, wishes);
    const keys = new Map(
      wishes.map(({ table, key }) => [
        table.name,
        key.map((name) => table.columns.findIndex((column) => column.name === name)),
      ]),
    );
    const target = new StrictTarget(keys);
    const reader = await connectWire(conninfo(), OPTIONS);
    const results = await reader.query(
      "begin isolation level repeatable read; select txid_current_snapshot()",
    );
    const base = parseSnapshot(results[1]?.rows[0]?.[0] ?? "");
    for (const { table } of wishes) {
      for (const row of await allRows(reader, table))
        target.rows(table.name).set(JSON.stringify(keys.get(table.name)?.map((index) => row[index])), row);
    }
    await reader.end();
    const tables = wishes.map(({ table }, index) => {
      const { id, key } = captured[index] as CapturedTable;
      const followed: FollowedTable = {
        id,
        key,
        relation: relationOf(table),
        partitioned: table.partitioned,
        rewrites: rewrites.includes(table.name),
      };
      return { table: followed, base };
    });
    const capture = new TriggerCapture({
      connection: await connectWire(conninfo(), OPTIONS),
      tables,
      rest: undefined,
      startLsn: 1n as Lsn,
      sink: target,
      binary: false,
      toSnapshot: undefined,
      requireUnchanged: async () => {},
      onDurable: () => {},
      settle: async () => {},
    });
    onTestFinished(() => capture[Symbol.asyncDispose]());
    return { target, capture, captured };
  }

  /** Waits until what has committed is on the target, and compares all of it. */
  async function expectEqual({ target, capture }: Followed): Promise<void> {
    await source.query("create table if not exists arrival (id int primary key)");
    const failure = capture.failed.catch((error: unknown) => error as Error);
    let failed: Error | undefined;
    void failure.then((error) => (failed = error));
    await using reader = await wire();
    const differing = async (): Promise<string[]> => {
      if (failed !== undefined) throw failed;
      const names: string[] = [];
      for (const table of await catalog()) {
        if (table.root !== undefined || table.name === "arrival") continue;
        const there = (await allRows(reader, table)).map((row) => JSON.stringify(row)).toSorted();
        const here = [...target.rows(table.name).values()].map((row) => JSON.stringify(row)).toSorted();
        if (JSON.stringify(there) !== JSON.stringify(here)) names.push(table.name);
      }
      return names;
    };
    let last: string[] = [];
    await until(async () => (last = await differing()).length === 0, {
      what: "the tables to be equal",
      timeout: 5_000,
    }).catch(() => {});
    expect(last).toEqual([]);
  }

  test("S6: brings INSERT, UPDATE, DELETE, COPY and TRUNCATE, and nothing of what is rolled back", async () => {
    await source.query(
      "create table t (id int primary key, v text); insert into t select i, 'old' from generate_series(1, 50) i",
    );
    const followed = await follow();
    await expectEqual(followed);
    await source.query("insert into t values (100, null), (101, E'a\\tb\\\\N')");
    await source.query("update t set v = 'new' where id % 2 = 0");
    await source.query("delete from t where id < 10");
    await expectEqual(followed);
    await source.query("begin; insert into t values (200, 'x'); delete from t where id = 20; rollback");
    await source.query(
      "begin; insert into t values (300, 'kept'); savepoint s; insert into t values (301, 'gone'); delete from t where id = 30; rollback to s; commit",
    );
    await expectEqual(followed);
    await source.query(
      "begin; insert into t values (400, 'before'); truncate t; insert into t values (20, 'again'), (401, 'after'); update t set v = 'x'; commit",
    );
    await expectEqual(followed);
    await source.query("truncate t");
    await expectEqual(followed);
  });

  test("COPY, INSERT ON CONFLICT and, from 15 on, MERGE are brought as what they do", async () => {
    await source.query(
      "create table t (id int primary key, v text); insert into t select i, 'old' from generate_series(1, 5) i",
    );
    const followed = await follow();
    await source.query(
      "insert into t select i, 'upserted' from generate_series(3, 8) i on conflict (id) do update set v = excluded.v; insert into t values (1, 'ignored') on conflict do nothing",
    );
    const copying = await connectWire(conninfo(), OPTIONS);
    const copy = await copying.copyIn("copy public.t from stdin");
    await copy.write(Buffer.from("20\tcopied\n21\t\\N\n"));
    expect(await copy.done()).toBe(2);
    await copying.end();
    if (sharedCluster("source").major >= 15)
      await source.query(
        `merge into t using (values (1, 'merged'), (2, null), (30, 'new')) as m (id, v) on t.id = m.id
           when matched and m.v is null then delete when matched then update set v = m.v when not matched then insert values (m.id, m.v)`,
      );
    await expectEqual(followed);
  });

  test("T2: keys that are exchanged, handed on, given up and taken again", async () => {
    await source.query(
      "create table t (id int primary key, v text); insert into t select i, 'row ' || i from generate_series(1, 9) i",
    );
    const followed = await follow();
    await source.query(
      `begin; update t set id = -1 where id = 1; update t set id = 1 where id = 2; update t set id = 2 where id = -1;
       delete from t where id = 3; insert into t values (3, 'again'); delete from t where id = 4; insert into t values (4, 'row 4');
       update t set id = 100 where id = 5; update t set id = 5 where id = 6; insert into t values (6, 'new six'); delete from t where id = 7; commit`,
    );
    await expectEqual(followed);
    await source.query("update t set id = id + 1 where id >= 100; update t set id = id - 1000");
    await expectEqual(followed);
  });

  test("T2: unique values that rows have exchanged come as deletes and inserts where the target has an index for them", async () => {
    await source.query(
      "create table t (id int primary key, u int unique deferrable, v text); insert into t select i, i, 'x' from generate_series(1, 5) i",
    );
    const followed = await follow({}, ["t"]);
    const kinds: string[] = [];
    const { target } = followed;
    const change = target.change.bind(target);
    target.change = (one) => {
      kinds.push(one.kind);
      change(one);
    };
    await source.query(
      "begin; set constraints all deferred; update t set u = 3 - u where id < 3; insert into t values (9, 9, 'gone'); delete from t where id = 9; update t set v = 'y' where id = 5; delete from t where id = 4; commit",
    );
    await expectEqual(followed);
    expect(kinds).toEqual(["delete", "delete", "delete", "delete", "insert", "insert", "insert"]);
  });

  test("T5: a writer needs no privilege but the table's, and a key that is NULL, large or odd fails no statement", async () => {
    await source.query(
      `create domain small as int check (value < 1000000); create type mood as enum ('ok', 'bad');
       create table t (tg_op text collate "C", "Odd ""name" numeric(10, 2), d small, m mood, c char(5), at timestamptz, v int,
         primary key (tg_op, "Odd ""name", d, m, c, at));
       insert into t select repeat('x', 5) || i, i / 3.0, i, 'ok', 'c' || i, '2020-01-01 00:00:00.123456+00', 0 from generate_series(1, 5) i`,
    );
    const [role] = await source.query<{ name: string }>(
      "select quote_ident('writer_' || substr(md5(random()::text), 1, 8)) as name",
    );
    const writer = role?.name as string;
    await source.query(
      `create role ${writer} login; grant select, insert, update, delete, truncate on t to ${writer}`,
    );
    const followed = await follow();
    const session = await source.connect(writer);
    // The functions find everything whatever its search_path; and what it makes for itself is not in their way.
    await session.query("create temp table erserver_new (n int); create temp table log_1 (n int)");
    await session.query("set search_path = pg_temp, public");
    await session.query(
      `insert into t values (repeat('large ', 400) || md5('a'), -0.5, -1, 'bad', '', 'infinity', 1)`,
    );
    await session.query(
      "update t set v = v + 1; update t set c = 'moved' where d = 2; delete from t where d = 3",
    );
    await expectEqual(followed);
    await session.query("truncate t");
    await expectEqual(followed);
    await source.query(`drop owned by ${writer}`);
    await session.end();
    await source.query(`drop role ${writer}`);
  });

  test("T7: a transaction that spans several syncs comes when it has committed, with nothing lost and nothing twice", async () => {
    await source.query(
      "create table t (id int primary key, v text); insert into t values (1, 'old'), (2, 'old')",
    );
    const followed = await follow();
    const long = await source.connect();
    await long.query(
      "begin; insert into t values (10, 'long'); savepoint s; update t set v = 'long' where id = 1; release s",
    );
    for (let round = 0; round < 5; round++) {
      const before = followed.target.transactions;
      await source.query(`insert into t values (${100 + round}, 'short')`);
      await until(() => followed.target.transactions > before, { what: "a sync" });
    }
    expect(followed.target.rows("t").has(JSON.stringify(["10"]))).toBe(false);
    await long.query("delete from t where id = 2; commit");
    await expectEqual(followed);
    const undone = await source.connect();
    await undone.query("begin; insert into t values (11, 'undone'); delete from t where id = 1");
    await source.query("update t set v = 'meanwhile' where id = 100");
    await expectEqual(followed);
    await undone.query("rollback");
    await source.query("update t set v = 'later' where id = 101");
    await expectEqual(followed);
  });

  test("partitions are one table, whichever relation a statement names, and rows may move", async () => {
    await source.query(
      `create table t (id int, region text, v text) partition by list (region);
       create table t_a partition of t for values in ('a');
       create table t_b (v text, region text, id int); alter table t attach partition t_b for values in ('b');
       create table t_c partition of t for values in ('c', 'd') partition by list (region);
       create table t_c1 partition of t_c for values in ('c'); create table t_d partition of t_c for values in ('d')`,
    );
    for (const leaf of ["t_a", "t_b", "t_c1", "t_d"])
      await source.query(`alter table ${leaf} add primary key (id, region)`);
    if (sharedCluster("source").major >= 11) await source.query("alter table t add primary key (id, region)");
    else return;
    await source.query(
      "insert into t select i, substr('abcd', 1 + i % 4, 1), 'old' from generate_series(1, 40) i",
    );
    const followed = await follow();
    await source.query(
      "insert into t values (100, 'a', 'root'), (101, 'd', 'root'); insert into t_b (id, region, v) values (102, 'b', 'leaf')",
    );
    await source.query(
      "update t set region = 'b' where id < 10; update t_c set region = 'c', v = 'mid' where id between 10 and 20",
    );
    await source.query(
      "delete from t_a where id > 30; delete from t_c1 where id > 30; delete from t where id = 102",
    );
    await expectEqual(followed);
    await source.query("truncate t_a; insert into t values (500, 'a', 'behind it')");
    await expectEqual(followed);
    await source.query(
      "begin; truncate t_c; insert into t values (501, 'c', 'behind it'); truncate t_b, t_d; commit",
    );
    await expectEqual(followed);
    await source.query(
      "begin; insert into t values (502, 'a', 'gone'); truncate t; insert into t values (503, 'a', 'gone too'), (504, 'b', 'stays'); truncate t_a; commit",
    );
    await expectEqual(followed);
  });

  test("S29, S30, S31: in column mode an UPDATE counts when it changes one of the columns; inserts and deletes always do", async () => {
    await source.query(
      "create table customer (id int primary key, lastname text, firstname text, notes json); insert into customer select i, 'Gould', 'F' || i, '{}' from generate_series(1, 5) i",
    );
    const followed = await follow({ customer: ["lastname", "notes"] });
    const seen = (id: number) => followed.target.rows("customer").get(JSON.stringify([String(id)]));
    await source.query(
      "update customer set firstname = 'unseen' where id = 1; insert into customer values (9, 'New', 'row', null)",
    );
    await until(() => seen(9), { what: "the insert" });
    expect(seen(1)).toEqual(["1", "Gould", "F1", "{}"]);
    // The whole row comes along. Two more of that name are left alone (T1).
    await source.query(
      "update customer set lastname = 'Nathaniel' where id = 1; delete from customer where id = 2",
    );
    await until(() => seen(1)?.[1] === "Nathaniel" && seen(2) === undefined, { what: "the update" });
    expect(seen(1)).toEqual(["1", "Nathaniel", "unseen", "{}"]);
    await source.query(
      "update customer set id = 30, firstname = 'moved' where id = 3; update customer set notes = '{ }' where id = 4",
    );
    await until(() => seen(30) !== undefined && seen(3) === undefined && seen(4)?.[3] === "{ }", {
      what: "the rest",
    });
    await captureTables(control, await wanted({ customer: ["lastname", "notes", "firstname"] }));
    await source.query("update customer set firstname = 'seen' where id = 5");
    await until(() => seen(5)?.[2] === "seen", { what: "another column" });
  });

  test("S32: to have tables recorded that are recorded already changes nothing; a key of other columns is refused", async () => {
    await source.query("create table t (id int primary key, other int not null unique)");
    const first = await captureTables(control, await wanted());
    const objects =
      "select array_agg(oid::text || tgfoid::text order by oid) as all, count(*)::int from pg_trigger where tgname like 'erserver%'";
    const before = await source.query(objects);
    expect(before).toMatchObject([{ count: 4 }]);
    const again = await captureTables(control, await wanted());
    expect(again[0]).toMatchObject({ id: first[0]?.id, joined: [] });
    expect(await source.query(objects)).toEqual(before);
    await source.query("alter table t rename id to ident; alter table t rename to u");
    await captureTables(control, await wanted());
    await source.query("insert into u values (1, 1)");
    expect(await source.query(`select k1::text, delta from erserver.log_${first[0]?.id}`)).toEqual([
      { k1: "1", delta: 1 },
    ]);
    await source.query("alter table u alter ident type bigint; insert into u values (5000000000, 2)");
    await source.query("alter table u drop constraint t_pkey; alter table u add primary key (other)");
    await expect(captureTables(control, await wanted())).rejects.toMatchObject({ code: "ERS-505" });
  });

  test("a table whose writers do not end is waited for without making others wait", async () => {
    await source.query("create table t (id int primary key)");
    const writer = await source.connect();
    await writer.query("begin; insert into t values (1)");
    const capturing = captureTables(control, await wanted());
    for (let id = 2; id < 6; id++) await source.query(`insert into t values (${id})`);
    await writer.query("commit");
    await capturing;
    await source.query("delete from t");
    expect(
      await source.query("select count(*)::int as deleted from erserver.log_1 where delta = -1"),
    ).toEqual([{ deleted: 5 }]);
  });

  test("all rows of a relation can be recorded as changed", async () => {
    await source.query(
      "create table t (id int primary key, v text); insert into t values (1, 'a'), (2, 'b')",
    );
    const followed = await follow();
    await source.query(
      "alter table t disable trigger user; update t set v = 'unseen'; alter table t enable trigger user",
    );
    const [table] = await catalog();
    await recordAllRows(control, followed.captured[0] as CapturedTable, table as CatalogTable);
    await expectEqual(followed);
  });

  test("S1, S2: every sync shows a state that the source had, while many write at the same time", async () => {
    const seed = Number(process.env["ERSERVER_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
    let state = seed;
    const random = (below: number): number => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
      return state % below;
    };
    await source.query(
      `create table account (id int primary key, balance int not null); insert into account select i, 100 from generate_series(1, 200) i;
       create table branch (id int primary key, balance int not null); insert into branch select i, 1000 from generate_series(1, 20) i`,
    );
    const followed = await follow();
    const { target } = followed;
    const sums: number[] = [];
    target.onCommit = () => {
      let sum = 0;
      for (const name of ["account", "branch"])
        for (const row of target.rows(name).values()) sum += Number(row[1]);
      sums.push(sum);
    };
    // What is taken from one row comes to another, in whichever table: only halves of transactions would show.
    const writer = async (number: number): Promise<void> => {
      const session = await source.connect();
      await session.query("set deadlock_timeout = '20ms'");
      for (let round = 0; round < 60 || sums.length < 10; round++) {
        const [from, to, id, amount] = [
          1 + random(200),
          1 + random(20),
          1000 + number * 100_000 + round,
          random(50),
        ];
        const undone = random(5) === 0;
        const step = [
          `update account set balance = balance - ${amount} where id = ${from}; update branch set balance = balance + ${amount} * (select count(*) from account where id = ${from}) where id = ${to}`,
          `insert into account values (${id}, ${amount}); update branch set balance = balance - ${amount} where id = ${to}`,
          `with gone as (delete from account where id = ${from} returning balance) update branch set balance = balance + coalesce((select sum(balance) from gone), 0) where id = ${to}`,
          `update account set id = ${id} where id = ${from}`,
        ][random(4)] as string;
        await session
          .query(
            `begin; ${step}; ${random(3) === 0 ? "savepoint s; delete from branch; rollback to s;" : ""} ${undone ? "rollback" : "commit"}`,
          )
          // Two of them in each other's way.
          .catch(async (error: { code?: string }) => {
            if (error.code !== "40P01") throw error;
            await session.query("rollback");
          });
      }
    };
    await Promise.all([0, 1, 2, 3].map((number) => writer(number)));
    await expectEqual(followed);
    expect(new Set(sums), `ERSERVER_TEST_SEED=${seed} repeats it`).toEqual(new Set([40_000]));
  });
});

async function allRows(connection: WireConnection, table: CatalogTable): Promise<readonly Row[]> {
  const columns = table.columns.map(({ name }) => quoteIdent(name)).join(", ");
  const from = `${table.partitioned ? "" : "only "}${quoteQualified(table.schema, table.name)}`;
  const [result] = await connection.query(`select ${columns} from ${from}`);
  return result?.rows ?? [];
}

function relationOf(table: CatalogTable): Relation {
  return {
    id: table.oid,
    schema: table.schema,
    name: table.name,
    replicaIdentity: "default",
    columns: table.columns.map((column) => ({
      name: column.name,
      typeOid: column.typeOid,
      typeModifier: column.typeModifier,
      partOfKey: table.uniqueKeys[0]?.includes(column.name) ?? false,
    })),
  };
}
