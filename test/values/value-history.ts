import { expect } from "vitest";
import { quoteLiteral } from "../../src/quote/literal.ts";
import { testMajor } from "../support/clusters.ts";
import { type ReplicationOptions, startReplication } from "../support/pipeline-context.ts";

/** A column type and hard values of it. */
export interface ValueType {
  readonly type: string;
  /** As the type's input function reads them, or SQL. No two may be equal by the type's own `=`, unless `key` is false. */
  readonly values: readonly Value[];
  /** More values, that are equal to one of `values` by `=` and not the same. */
  readonly alike?: readonly Value[];
  /** False for a type that cannot be a key, or where equal values are of no interest. */
  readonly key?: boolean;
}

export type Value = string | { readonly sql: string };

export const sql = (text: string): Value => ({ sql: text });

/** The older server of the pair decides what can be had. */
export const since = (major: number, ...types: readonly ValueType[]): readonly ValueType[] =>
  Math.min(testMajor("source"), testMajor("target")) >= major ? types : [];

export const valueSince = (major: number, ...values: readonly Value[]): readonly Value[] =>
  Math.min(testMajor("source"), testMajor("target")) >= major ? values : [];

/** How values may travel. Binary values in the stream came with 14: before it, `binary` is the first copy alone. */
export const TRAVEL = [["binary"], ["text"]] as const;
export type Travel = (typeof TRAVEL)[number][0];

export function travelConfig(travel: Travel): string {
  if (travel === "text") return "binary: off";
  return testMajor("source") >= 14 ? "binary: on" : "binary: auto";
}

/** The array types of all of them, with the value lists as one-dimensional, nested, empty and NULL-holding arrays. */
export function arraysOf(types: readonly ValueType[]): ValueType[] {
  return types.map(({ type, values }) => {
    const list = values.map((value) => literal(value, type)).join(", ");
    const element = type.replace(/\([\d, ]*\)/, "");
    // The one type whose text has commas outside of quotes.
    const mark = type === "box" ? ";" : ",";
    return {
      type: `${element}[]`,
      key: false,
      values: [
        "{}",
        "{NULL}",
        sql(`array[${list}]::${element}[]`),
        sql(`array[${list}, null]::${element}[]`),
        sql(`array[array[${list}], array[${list}]]::${element}[]`),
        `[-3:-2][7:8]={{NULL${mark}NULL}${mark}{NULL${mark}NULL}}`,
        sql(`array_fill(${literal(values[0] as Value, type)}, array[2], array[5])::${element}[]`),
      ],
    };
  });
}

export interface HistoryOptions extends Pick<ReplicationOptions, "config" | "encodings"> {
  /** SQL before the tables are made, on both sides. */
  readonly prelude?: string;
  /** And before it, on one. */
  readonly sourcePrelude?: string;
  readonly targetPrelude?: string;
}

/**
 * Takes every value through the first copy and through the stream: inserted, updated to, updated away from, its row
 * deleted, found by a key of the type and found by the image of the whole row (REPLICA IDENTITY FULL, no key). The
 * content is compared after each step, and no row may ever have been searched in vain.
 */
export async function expectFaithful(
  types: readonly ValueType[],
  { config, encodings, prelude, sourcePrelude, targetPrelude }: HistoryOptions = {},
): Promise<void> {
  const tables = types.map((type, index) => historyOf(type, index));
  const all = (step: (table: ValueHistory) => string): string => tables.map(step).join(";\n");
  const schema = `${prelude ?? ""};${all((table) => table.create)}`;
  await using replication = await startReplication({
    ...(config === undefined ? {} : { config }),
    ...(encodings === undefined ? {} : { encodings }),
    sourceSchema: `${sourcePrelude ?? ""};${schema}`,
    targetSchema: `${targetPrelude ?? ""};${schema}`,
    rows: all((table) => table.insert(1)),
  });
  await replication.expectEqual();
  const { source, target } = replication;
  const steps = [
    all((table) => table.insert(2)),
    all((table) => table.changeValue),
    all((table) => table.changeKey),
    all((table) => table.remove(" and n % 2 = 0")),
  ];
  for (const step of steps) {
    await source.query(step);
    await replication.expectEqual();
  }
  const left = all((table) => table.count).replaceAll(";", " union all");
  const counted = await target.query<{ rows: string }>(
    `select count(*) as rows from (${left}) counts where rows = 0`,
  );
  expect(counted).toEqual([{ rows: "0" }]);
  await source.query(all((table) => table.remove("")));
  await replication.expectEqual();
  expect(await target.query("select conflicts from erserver.progress")).toEqual([{ conflicts: "0" }]);
}

interface ValueHistory {
  readonly create: string;
  insert(part: number): string;
  readonly changeValue: string;
  readonly changeKey: string;
  remove(condition: string): string;
  readonly count: string;
}

/** SQL over two tables for one type: `keyed_…`, with a key of the type where it can be one, and `whole_…`. */
function historyOf({ type, values, alike = [], key = true }: ValueType, index: number): ValueHistory {
  const keyed = `keyed_${index}`;
  const whole = `whole_${index}`;
  const listOf = (of: readonly Value[]): string =>
    `(values ${of.map((value, n) => `(${n}, ${literal(value, type)})`).join(", ")}) as list(n, v)`;
  const keys = listOf(values);
  const every = listOf([...values, ...alike, sql("null")]);
  const count = values.length + alike.length + 1;
  const shown = key ? "part, n, k, v" : "part, n, v";
  const shift = (table: string): string =>
    `update ${table} t set v = list.v from ${every} where list.n = (t.n + part) % ${count}`;
  return {
    create: `create table ${keyed} (part int, n int${key ? `, k ${type}` : ""}, v ${type}, primary key (part, ${key ? "k" : "n"}));
      create table ${whole} (part int, n int, v ${type}); alter table ${whole} replica identity full`,
    insert: (part) =>
      `insert into ${keyed} (${shown}) select ${part}, n${key ? ", v" : ""}, v from ${keys};
       insert into ${whole} select ${part}, n, v from ${every}`,
    changeValue: `${shift(keyed)}; ${shift(whole)}`,
    // Keys move to another part: at no moment are two of them equal.
    changeKey: `update ${keyed} t set part = part + 10${key ? ", k = list.v" : ""} from ${keys} where list.n = (t.n + 1) % ${values.length}; ${shift(whole)}`,
    remove: (condition) =>
      `delete from ${keyed} where true${condition}; delete from ${whole} where true${condition}`,
    count: `select count(*) as rows from ${keyed}; select count(*) from ${whole}`,
  };
}

function literal(value: Value, type: string): string {
  return typeof value === "string" ? `${quoteLiteral(value)}::${type}` : `(${value.sql})::${type}`;
}
