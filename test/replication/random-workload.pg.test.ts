/**
 * Random transactions over tables of several shapes, and the target equal at the end. What one run does follows from its seed:
 * ERSERVER_TEST_SEED=… repeats it, ERSERVER_TEST_ROUNDS=… asks for more.
 */
import { expect, test } from "vitest";
import type { Client } from "pg";
import { testMajor } from "../support/clusters.ts";
import { startReplication } from "../support/pipeline-context.ts";

const SEED = Number(process.env["ERSERVER_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const ROUNDS = Number(process.env["ERSERVER_TEST_ROUNDS"] ?? 3);

const major = testMajor("source");
/** Few keys, so that the same rows are met again and again. */
const KEYS = 12;

class Random {
  /** A TRUNCATE is not for snapshots: beside the first copy it would empty what the copy was still to read. */
  truncates = true;
  #state: number;
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }
  /** From 0 up to and without `bound`. mulberry32. */
  below(bound: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * bound);
  }
  chance(percent: number): boolean {
    return this.below(100) < percent;
  }
  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)] as T;
  }
}

interface Shape {
  readonly name: string;
  readonly ddl: string;
  readonly targetDdl?: string;
  /** Columns of the key, which may be changed. */
  readonly key: readonly string[];
  readonly columns: Readonly<Record<string, (random: Random) => string>>;
}

const key = (random: Random): string => String(random.below(KEYS));
const int = (random: Random): string => (random.chance(15) ? "null" : String(random.below(1000) - 500));
const text = (random: Random): string =>
  random.pick(
    ["null", "''", "'a'", "'ä\\''", "'a'", "E'\\\\N'", "'n\n'"].map((value) => value.replace("\\'", "''")),
  );
const numeric = (random: Random): string =>
  random.pick(["null", "1.0", "1.00", "'NaN'", "-0.001", "12345678901234567890.123"]);
const float = (random: Random): string =>
  random.pick(["null", "'-0'", "0", "'NaN'", "1e300", "'-Infinity'", "0.1"]);
const json = (random: Random): string => random.pick(["null", `'{"b":1,"a":[1, null]}'`, "'[]'"]);
const big = (random: Random): string =>
  random.pick([
    "null",
    "'short'",
    `repeat('${random.below(10)}x', 5000)`,
    `repeat('${random.below(10)}y', 1500)`,
  ]);
const array = (random: Random): string =>
  random.pick(["null", "'{}'", `'{${random.below(3)},null}'`, "'{{1,2},{3,4}}'"]);

const EXTERNAL = (table: string): string => `alter table ${table} alter big set storage external;`;
const parted = major >= 11 ? "primary key (k)" : "";

const SHAPES: readonly Shape[] = [
  {
    name: "plain",
    ddl: "create table plain (k int primary key, v int, t text);",
    key: ["k"],
    columns: { k: key, v: int, t: text },
  },
  {
    name: "composite",
    ddl: 'create table composite (t text, a int, b text collate "C", n numeric, primary key (b, a));',
    targetDdl:
      "create table composite (b text, extra int default 5, n numeric, a int, t text, primary key (a, b));",
    key: ["a", "b"],
    columns: {
      a: (random) => String(random.below(4)),
      b: (random) => `'${random.below(4)}'`,
      t: text,
      n: numeric,
    },
  },
  {
    name: "toasted",
    ddl: `create table toasted (k int primary key, big text, v int, j jsonb); ${EXTERNAL("toasted")}`,
    key: ["k"],
    columns: { k: key, big, v: int, j: json },
  },
  {
    name: "by_index",
    ddl: "create table by_index (id serial primary key, k int not null unique, v int, h int[]); alter table by_index replica identity using index by_index_k_key;",
    key: ["k"],
    columns: { k: key, v: int, h: array },
  },
  {
    name: "full_key",
    ddl: `create table full_key (k int primary key, big text, f float8); ${EXTERNAL("full_key")} alter table full_key replica identity full;`,
    key: ["k"],
    columns: { k: key, big, f: float },
  },
  {
    name: "bag",
    ddl: "create table bag (k int, t text, n numeric, f float8, j json); alter table bag replica identity full;",
    key: [],
    columns: { k: (random) => String(random.below(3)), t: text, n: numeric, f: float, j: json },
  },
  {
    name: "numbered",
    ddl: "create table numbered (k int generated always as identity primary key, v int, t text);",
    key: ["k"],
    columns: { k: key, v: int, t: text },
  },
  {
    name: "parted",
    ddl: `create table parted (k int not null, v int, t text ${parted && `, ${parted}`}) partition by range (k); create table parted_0 partition of parted for values from (minvalue) to (4);
      create table parted_1 partition of parted for values from (4) to (8); create table parted_2 partition of parted for values from (8) to (maxvalue);
      ${parted === "" ? ["parted_0", "parted_1", "parted_2"].map((name) => `alter table ${name} add primary key (k);`).join("") + "alter table parted replica identity full;" : ""}`,
    targetDdl: "create table parted (t text, v int, k int primary key);",
    key: ["k"],
    columns: { k: key, v: int, t: text },
  },
];

function statement(random: Random, shape: Shape): string {
  const { name, columns } = shape;
  const names = Object.keys(columns);
  const value = (column: string): string => columns[column]!(random);
  const where = (): string => {
    const column =
      shape.key.length > 0 && random.chance(80)
        ? random.pick(shape.key)
        : "k" in columns
          ? "k"
          : (shape.key[0] as string);
    return random.chance(75)
      ? `${column} = ${value(column)}`
      : random.chance(50)
        ? `${column} <= ${value(column)}`
        : `${column} in (${value(column)}, ${value(column)})`;
  };
  switch (random.below(11)) {
    case 0:
    case 1:
    case 2:
    case 3: {
      const rows = Array.from(
        { length: 1 + (random.chance(20) ? random.below(6) : 0) },
        () => `(${names.map(value).join(", ")})`,
      );
      const overriding = name === "numbered" ? " overriding system value" : "";
      return `insert into ${name} (${names.join(", ")})${overriding} values ${rows.join(", ")}${shape.key.length > 0 && name !== "parted" && random.chance(70) ? " on conflict do nothing" : ""}`;
    }
    case 4:
    case 5:
    case 6: {
      const set = names.filter((column) => !shape.key.includes(column) && random.chance(50));
      const changed =
        set.length > 0 ? set : names.filter((column) => !shape.key.includes(column)).slice(0, 1);
      return `update ${name} set ${changed.map((column) => `${column} = ${value(column)}`).join(", ")} where ${where()}`;
    }
    case 7: {
      // The key alone, or with something else; sometimes to where it is.
      if (name === "numbered")
        return `update numbered set k = default${random.chance(50) ? `, v = ${value("v")}` : ""} where ${where()}`;
      if (name === "parted" && major < 11) return `update parted set v = v + 1 where ${where()}`;
      const column = shape.key.length > 0 ? random.pick(shape.key) : "k";
      const more = random.chance(50)
        ? ""
        : `, ${names
            .filter((one) => !shape.key.includes(one))
            .map((one) => `${one} = ${one}`)
            .join(", ")}`;
      return `update ${name} set ${column} = ${random.chance(20) ? column : value(column)}${shape.key.length === 0 ? "" : more} where ${where()}`;
    }
    case 8:
    case 9:
      return `delete from ${name} where ${where()}`;
    default:
      return major >= 11 && random.truncates && random.chance(15)
        ? `truncate ${random.chance(30) ? `${name}, ${random.pick(SHAPES.filter((other) => other !== shape)).name}` : name}${random.chance(30) ? " restart identity" : ""}`
        : `delete from ${name} where ${where()}`;
  }
}

/** Runs one transaction; statements that the source refuses are part of the game. */
async function transaction(random: Random, session: Client): Promise<void> {
  const tried = async (sql: string): Promise<boolean> =>
    session.query(sql).then(
      () => true,
      () => false,
    );
  if (random.chance(25)) {
    await tried(statement(random, random.pick(SHAPES)));
    return;
  }
  await session.query("begin");
  const savepoints: string[] = [];
  const length = 1 + random.below(random.chance(10) ? 40 : 7);
  for (let i = 0; i < length; i++) {
    const roll = random.below(100);
    if (roll < 8) {
      savepoints.push(`s${i}`);
      await session.query(`savepoint s${i}`);
    } else if (roll < 14 && savepoints.length > 0) {
      const at = random.below(savepoints.length);
      await session.query(`rollback to savepoint ${savepoints[at]}`);
      savepoints.length = at + 1;
    } else if (roll < 17 && savepoints.length > 0) {
      await session.query(`release savepoint ${savepoints.pop()}`);
    } else {
      await session.query("savepoint one");
      if (!(await tried(statement(random, random.pick(SHAPES)))))
        await session.query("rollback to savepoint one");
      if (random.chance(70)) await session.query("release savepoint one");
    }
  }
  await session.query(random.chance(12) ? "rollback" : "commit");
}

test.for([
  ["small groups", "apply: { group: { transactions: 3, bytes: 64kB } }"],
  ["large groups", ""],
  ["small groups, values as text", "binary: off\napply: { group: { transactions: 2 } }"],
  ["groups as sets", "apply: { write: sets }"],
  ["groups as sets, values as text", "binary: off\napply: { write: sets, group: { transactions: 30 } }"],
  ["groups at the same time", "apply: { write: sets, workers: 4, group: { transactions: 2 } }"],
] as const)(
  "random transactions leave source and target equal: %s",
  { timeout: 300_000 },
  async ([, config], { annotate }) => {
    await annotate(`ERSERVER_TEST_SEED=${SEED}`);
    const ddl = (side: "ddl" | "targetDdl"): string =>
      SHAPES.map((shape) => (side === "targetDdl" ? (shape.targetDdl ?? shape.ddl) : shape.ddl)).join("\n");
    await using replication = await startReplication({
      sourceSchema: ddl("ddl"),
      targetSchema: ddl("targetDdl"),
      config,
    });
    const { source, target } = replication;
    const sessions = await Promise.all(Array.from({ length: 3 }, () => source.connect()));
    for (const session of sessions)
      await session.query("set synchronous_commit = off; set deadlock_timeout = '20ms'");
    try {
      for (let round = 0; round < ROUNDS; round++) {
        const random = new Random(SEED + round);
        // The first round goes on while the tables are copied.
        random.truncates = round > 0;
        const stopped = round % 2 === 1;
        if (stopped) await replication.running.stop();
        // One session repeats exactly; several at once meet each other differently each time.
        if (round % 3 !== 2) for (let i = 0; i < 150; i++) await transaction(random, sessions[0]!);
        else
          await Promise.all(
            sessions.map(async (session, at) => {
              const own = new Random(SEED + round * 10 + at);
              for (let i = 0; i < 60; i++)
                await transaction(own, session).catch(() => session.query("rollback"));
            }),
          );
        if (stopped) await replication.restart();
        await replication.expectEqual();
      }
      expect(
        await target.query("select table_name, kind, key, commit_lsn, xid from erserver.conflict"),
      ).toEqual([]);
      expect(await target.query("select 1 from composite where extra <> 5")).toEqual([]);
    } catch (error) {
      throw new Error(`ERSERVER_TEST_SEED=${SEED} repeats it`, { cause: error });
    }
  },
);
