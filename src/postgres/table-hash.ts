import { quoteIdent, quoteQualified } from "../quote/ident.ts";
import type { WireConnection } from "../wire/connection.ts";
import type { CatalogColumn } from "./catalog.ts";

/** The content of a table as a multiset of rows: how many, and a sum of row hashes that no order changes. */
export interface TableHash {
  readonly rows: number;
  readonly sum: string;
}

export type HashedColumn = Pick<CatalogColumn, "name" | "typeName" | "baseType">;

export interface HashedTable {
  readonly schema: string;
  readonly name: string;
  readonly partitioned: boolean;
  /** In the same order on both sides. */
  readonly columns: readonly HashedColumn[];
  /** Rows to leave out: those that the condition does not select. */
  readonly where?: string | undefined;
}

/**
 * Types that consist of binary floating point numbers, and their send functions. Their text form depends on the server's
 * version (before 12, floats print up to 17 digits, from 12 the shortest exact form), their binary form does not.
 */
const SEND_FUNCTIONS: Readonly<Record<string, string>> = {
  real: "float4send",
  "double precision": "float8send",
  point: "point_send",
  line: "line_send",
  lseg: "lseg_send",
  box: "box_send",
  path: "path_send",
  polygon: "poly_send",
  circle: "circle_send",
};

/** SQL for a value whose text is the same on every server that holds the same value. */
function comparable({ name, typeName, baseType }: HashedColumn): string {
  const type = baseType ?? typeName;
  const column = quoteIdent(name);
  const element = type.endsWith("[]") ? type.slice(0, -2) : undefined;
  const send = SEND_FUNCTIONS[element ?? type];
  if (send === undefined) return column;
  const bytes = (value: string): string =>
    // NaN has many bit patterns and arrives as one of them.
    send.startsWith("float")
      ? `case when ${value} <> 'NaN' then pg_catalog.${send}(${value}) when ${value} is not null then '' end`
      : `pg_catalog.${send}(${value})`;
  if (element === undefined) return bytes(column);
  // Not array_send, which also tells whether the array ever had a NULL.
  return `case when ${column} is not null then row(pg_catalog.array_dims(${column}), array(select ${bytes("element")} from pg_catalog.unnest(${column}) with ordinality as u(element, n) order by n))::text end`;
}

/**
 * Each row becomes text as a record, which tells NULL from an empty string and quotes what is ambiguous; its md5, in
 * UTF-8 whatever the database's encoding is, is summed in two halves, so that duplicate rows count and the order does
 * not. `where` applies to the source's columns. md5 here is a checksum against accidents, not against forgery.
 */
function tableHashSql(table: HashedTable): string {
  const values = table.columns.map(comparable);
  const from = `${table.partitioned ? "" : "only "}${quoteQualified(table.schema, table.name)}`;
  const half = (start: number): string =>
    `coalesce(sum(('x' || substr(h, ${start}, 16))::bit(64)::bigint::numeric), 0)::text`;
  return `select count(*)::text, ${half(1)} || ':' || ${half(17)}
    from (select pg_catalog.md5(pg_catalog.convert_to((row(${values.join(", ")}))::text, 'UTF8')) as h from ${from}${table.where === undefined ? "" : ` where (${table.where})`}) as hashed`;
}

export async function hashTable(connection: WireConnection, table: HashedTable): Promise<TableHash> {
  const [result] = await connection.query(tableHashSql(table));
  const [rows, sum] = result?.rows[0] ?? [];
  return { rows: Number(rows), sum: sum ?? "" };
}

export function sameHash(a: TableHash, b: TableHash): boolean {
  return a.rows === b.rows && a.sum === b.sum;
}

/** The content of two tables together. */
export function addHashes(a: TableHash, b: TableHash): TableHash {
  const [a1 = "0", a2 = "0"] = a.sum.split(":");
  const [b1 = "0", b2 = "0"] = b.sum.split(":");
  return { rows: a.rows + b.rows, sum: `${BigInt(a1) + BigInt(b1)}:${BigInt(a2) + BigInt(b2)}` };
}
