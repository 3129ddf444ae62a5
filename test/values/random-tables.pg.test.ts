/**
 * Random tables with random values, copied and streamed. Seed and path of a failure are printed by fast-check;
 * `ERSERVER_TEST_SEED=… ERSERVER_TEST_RUNS=…` runs another seed, or longer.
 */
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { testMajor } from "../support/clusters.ts";
import { quoteIdent } from "../../src/quote/ident.ts";
import { quoteLiteral } from "../../src/quote/literal.ts";
import { startReplication } from "../support/pipeline-context.ts";
import { TRAVEL, type Travel, travelConfig } from "./value-history.ts";

interface RandomType {
  readonly sql: string;
  readonly value: fc.Arbitrary<string>;
  readonly key?: true;
  /** Its bytes are not the same on every server. */
  readonly unsafe?: true;
}

const major = Math.min(testMajor("source"), testMajor("target"));
const seed = Number(process.env["ERSERVER_TEST_SEED"] ?? Date.now() % 2 ** 31);
const numRuns = Number(process.env["ERSERVER_TEST_RUNS"] ?? 3);

const bigint = (bits: bigint): fc.Arbitrary<string> =>
  fc.bigInt({ min: -(2n ** (bits - 1n)), max: 2n ** (bits - 1n) - 1n }).map(String);
const text = fc
  .oneof(
    fc.string({ unit: "binary", maxLength: 20 }),
    fc.string({ unit: fc.constantFrom(...Array.from("'\"\\,{}()\t\n N")), maxLength: 8 }),
  )
  .map((value) => value.replaceAll("\0", ""));
const float = (value: number): string => (Object.is(value, -0) ? "-0" : String(value));
const stamp = fc
  .tuple(
    fc.integer({ min: 1, max: 9999 }),
    fc.integer({ min: 1, max: 12 }),
    fc.integer({ min: 1, max: 28 }),
    fc.nat(86_399_999_999),
    fc.boolean(),
  )
  .map(([year, month, day, us, bc]) => {
    const pad = (value: number, digits = 2): string => String(value).padStart(digits, "0");
    const seconds = Math.floor(us / 1e6);
    const time = `${pad(Math.floor(seconds / 3600))}:${pad(Math.floor(seconds / 60) % 60)}:${pad(seconds % 60)}.${pad(us % 1e6, 6)}`;
    // 4714 BC is where they begin.
    return [
      `${pad(bc ? 1 + (year % 4700) : year, 4)}-${pad(month)}-${pad(day)}`,
      time,
      bc ? " BC" : "",
    ] as const;
  });
// One below the largest stays free for the canonical form, which is [low,high).
const range = fc
  .tuple(
    fc.integer({ max: 2 ** 31 - 2 }),
    fc.nat(1_000_000),
    fc.constantFrom("[", "("),
    fc.constantFrom("]", ")"),
    fc.boolean(),
    fc.boolean(),
  )
  .map(
    ([low, length, open, close, noLow, noHigh]) =>
      `${open}${noLow ? "" : low},${noHigh ? "" : Math.min(low + length, 2 ** 31 - 2)}${close}`,
  );
const numeric = fc
  .tuple(fc.bigInt({ min: -(10n ** 30n), max: 10n ** 30n }), fc.integer({ min: -60, max: 60 }))
  .map(([digits, exponent]) => `${digits}e${exponent}`);
const json = fc.json({ stringUnit: "grapheme-ascii" }).map((value) => value.replaceAll("\\u0000", ""));

const TYPES: readonly RandomType[] = [
  { sql: "bool", value: fc.boolean().map(String), key: true },
  { sql: "int2", value: bigint(16n), key: true },
  { sql: "int4", value: bigint(32n), key: true },
  { sql: "int8", value: bigint(64n), key: true },
  { sql: "float4", value: fc.float().map(float), key: true },
  { sql: "float8", value: fc.double().map(float), key: true },
  { sql: "numeric", value: numeric, key: true },
  {
    sql: "numeric(80,10)",
    value: fc.bigInt({ min: -(10n ** 50n), max: 10n ** 50n }).map((digits) => `${digits}e-10`),
    key: true,
  },
  { sql: "text", value: text, key: true },
  { sql: "varchar", value: text, key: true },
  { sql: "char(30)", value: text.map((value) => Array.from(value).slice(0, 30).join("")), key: true },
  {
    sql: "bytea",
    value: fc.uint8Array({ maxLength: 40 }).map((bytes) => `\\x${Buffer.from(bytes).toString("hex")}`),
    key: true,
  },
  { sql: "date", value: stamp.map(([date, , era]) => `${date}${era}`), key: true },
  { sql: "time", value: stamp.map(([, time]) => time), key: true },
  { sql: "timestamp", value: stamp.map(([date, time, era]) => `${date} ${time}${era}`), key: true },
  { sql: "timestamptz", value: stamp.map(([date, time]) => `${date} ${time}+05:30`), key: true },
  {
    sql: "interval",
    value: fc
      .tuple(fc.integer(), fc.integer(), fc.integer(), fc.nat(999_999))
      .map(
        ([months, days, seconds, us]) =>
          `${months} months ${days} days ${seconds} seconds ${us} microseconds`,
      ),
    key: true,
  },
  { sql: "uuid", value: fc.uuid(), key: true },
  { sql: "json", value: json },
  { sql: "jsonb", value: json },
  {
    sql: "inet",
    value: fc.oneof(
      fc.ipV4Extended().filter((ip) => /^\d+\.\d+\.\d+\.\d+$/.test(ip) && !/(^|\.)0\d/.test(ip)),
      fc.ipV6(),
    ),
    key: true,
  },
  {
    sql: "bit varying",
    value: fc.array(fc.constantFrom("0", "1"), { maxLength: 70 }).map((bits) => bits.join("")),
    key: true,
  },
  {
    sql: "money",
    value: bigint(64n).map((cents) =>
      cents.replace(
        /^(-?)(\d*?)(\d{1,2})$/,
        (_, sign, units, rest) => `${sign}${units || "0"}.${rest.padStart(2, "0")}`,
      ),
    ),
  },
  { sql: "point", value: fc.tuple(fc.double(), fc.double()).map(([x, y]) => `(${float(x)},${float(y)})`) },
  { sql: "int4range", value: range, key: true },
  {
    sql: "pg_lsn",
    value: fc.tuple(fc.nat(), fc.nat()).map(([high, low]) => `${high.toString(16)}/${low.toString(16)}`),
    key: true,
  },
  ...(major >= 14
    ? [
        {
          sql: "int4multirange",
          value: fc.array(range, { maxLength: 4 }).map((ranges) => `{${ranges.join(",")}}`),
        },
      ]
    : []),
  { sql: "mood", value: fc.constantFrom("sad", "so so", "ok"), key: true },
  {
    sql: "mood[]",
    value: fc
      .array(fc.constantFrom("sad", '"so so"', "NULL"), { maxLength: 4 })
      .map((items) => `{${items.join(",")}}`),
    unsafe: true,
  },
  {
    sql: "pair",
    value: fc.tuple(fc.integer(), text).map(([a, b]) => `(${a},"${b.replace(/["\\]/g, "\\$&")}")`),
    unsafe: true,
  },
];

/** Arrays of the built-in ones are as safe as these. */
const arrayOf = ({ sql, value }: RandomType): RandomType => ({
  sql: `${sql.replace(/\(.*/, "")}[]`,
  value: fc
    .array(fc.option(value), { maxLength: 4 })
    .map(
      (items) =>
        `{${items.map((item) => (item === null ? "NULL" : `"${item.replace(/["\\]/g, "\\$&")}"`)).join(",")}}`,
    ),
});

const typeFor = (travel: Travel): fc.Arbitrary<RandomType> => {
  const allowed = TYPES.filter((type) => travel === "text" || type.unsafe === undefined);
  const base = fc.constantFrom(...allowed);
  const arrays = fc.constantFrom(
    ...allowed.filter(
      ({ sql }) => /^(int|float|numeric|text|bytea|timestamp|json|uuid)/.test(sql) && !sql.includes("range"),
    ),
  );
  return fc.oneof({ weight: 4, arbitrary: base }, { weight: 1, arbitrary: arrays.map(arrayOf) });
};

interface RandomTable {
  readonly types: readonly Pick<RandomType, "sql" | "key">[];
  readonly keyed: boolean;
  readonly rows: readonly (readonly (string | null)[])[];
}

const tableFor = (travel: Travel): fc.Arbitrary<RandomTable> =>
  fc.array(typeFor(travel), { minLength: 1, maxLength: 8 }).chain((types) =>
    fc.record({
      // Without the arbitraries, which would be printed with a counterexample.
      types: fc.constant(types.map(({ sql, key }) => ({ sql, ...(key === undefined ? {} : { key }) }))),
      keyed: fc.boolean(),
      rows: fc.array(fc.tuple(...types.map(({ value }) => fc.option(value, { freq: 6 }))), {
        minLength: 6,
        maxLength: 20,
      }),
    }),
  );

const column = (index: number): string => quoteIdent(`c ${index}`);

/** The first column that can be a key is one, along with the number of the row, which goes through the text form, so that a key is never there twice. */
function createSql({ types, keyed }: RandomTable, name: string): string {
  const columns = types.map(({ sql }, index) => `${column(index)} ${sql}`);
  const key = types.findIndex((type) => type.key === true);
  const primary = keyed ? `, primary key (n${key === -1 ? "" : `, ${column(key)}`})` : "";
  return `create table ${name} (${["n int", ...columns].join(", ")}${primary}); alter table ${name} replica identity ${keyed ? "default" : "full"}`;
}

function rowSql(table: RandomTable, values: readonly (string | null)[]): string[] {
  const key = table.types.findIndex((type) => type.key === true);
  return table.types.map(({ sql }, index) => {
    const value = values[index] ?? null;
    // A key is never NULL: the row takes another row's value.
    const shown =
      value === null && table.keyed && index === key
        ? (table.rows.find((row) => row[index] != null)?.[index] ?? null)
        : value;
    return shown === null ? "null" : `${quoteLiteral(shown)}::${sql}`;
  });
}

function usable(table: RandomTable): boolean {
  const key = table.types.findIndex((type) => type.key === true);
  return !table.keyed || key === -1 || table.rows.some((row) => row[key] != null);
}

/** Insert, update to the next row's values, key change, delete. */
function historySql(table: RandomTable, name: string, from: number): string[] {
  const insert = (row: readonly (string | null)[], n: number): string =>
    `insert into ${name} values (${[from + n, ...rowSql(table, row)].join(", ")})`;
  const update = (n: number, shift: number): string => {
    const next = table.rows[(n + 1) % table.rows.length] as RandomTable["rows"][number];
    const set = rowSql(table, next).map((value, index) => `${column(index)} = ${value}`);
    return `update ${name} set ${[`n = n + ${shift}`, ...set].join(", ")} where n = ${from + n}`;
  };
  return [
    table.rows.map(insert).join("; "),
    table.rows
      .map((_, n) =>
        n % 3 === 0
          ? update(n, 0)
          : n % 3 === 1
            ? update(n, 10_000)
            : `delete from ${name} where n = ${from + n}`,
      )
      .join("; "),
  ];
}

test.for(TRAVEL)(
  `random tables arrive as they are, as %s (seed ${seed})`,
  { timeout: 600_000 },
  async ([travel]) => {
    const tables = fc.array(tableFor(travel).filter(usable), { minLength: 6, maxLength: 12 });
    await fc.assert(
      fc.asyncProperty(tables, async (random) => {
        const all = (each: (table: RandomTable, name: string) => string): string =>
          random.map((table, index) => each(table, `t${index}`)).join("; ");
        await using replication = await startReplication({
          schema: `create type mood as enum ('sad', 'so so', 'ok'); create type pair as (a int, b text); ${all(createSql)}`,
          rows: all((table, name) => historySql(table, name, 0)[0] ?? ""),
          config: travelConfig(travel),
        });
        await replication.caughtUp();
        await replication.source.query(all((table, name) => historySql(table, name, 100)[0] ?? ""));
        await replication.source.query(all((table, name) => historySql(table, name, 100)[1] ?? ""));
        await replication.source.query(all((table, name) => historySql(table, name, 0)[1] ?? ""));
        await replication.expectEqual();
        expect(await replication.target.query("select conflicts from erserver.progress")).toEqual([
          { conflicts: "0" },
        ]);
      }),
      { seed, numRuns, endOnFailure: true },
    );
  },
);
