/**
 * The oracle of the tests: it knows nothing of erserver's own verify.
 *
 * Two tables are equal when their common columns hold the same multiset of rows, as the text that PostgreSQL prints with pinned
 * settings; numbers in binary floating point and geometric values are compared by their bytes, since PostgreSQL 12 began to print
 * them differently. Not covered: a composite type with such a field, compared between servers older and newer than 12.
 */
import { type Client, escapeIdentifier } from "pg";
import { openSession } from "./clusters.ts";

const SETTINGS = `SET datestyle = 'ISO, MDY'; SET intervalstyle = 'postgres'; SET timezone = 'UTC'; SET extra_float_digits = 3;
  SET bytea_output = 'hex'; SET lc_monetary = 'C'; SET client_encoding = 'UTF8'; SET search_path = pg_catalog; SET quote_all_identifiers = off`;

const BINARY_TYPES = ["float4", "float8", "point", "lseg", "path", "box", "polygon", "line", "circle"];

interface Table {
  /** Quoted, with ONLY for a table that may have heirs. */
  readonly from: string;
  /** Expression by column name. */
  readonly columns: ReadonlyMap<string, string>;
}

interface Bucket {
  readonly bucket: string;
  readonly rows: string;
  readonly hash: string;
}

/**
 * Fails unless every table has the same content on both sides, naming each table that differs with at most five of its rows.
 * @param tables names as SQL writes them, `public.customer`. Default: every table of the source outside the schemas of PostgreSQL and
 *   erserver; a partitioned table counts as one.
 */
export async function expectEqualTables(
  sourceUrl: string,
  targetUrl: string,
  tables?: readonly string[],
): Promise<void> {
  const source = await openSession(sourceUrl);
  const target = await openSession(targetUrl).catch(async (error: unknown) => {
    await source.end();
    throw error;
  });
  try {
    await Promise.all([source.query(SETTINGS), target.query(SETTINGS)]);
    const names = tables ?? (await userTables(source));
    if (names.length === 0) throw new Error("the source has no table to compare");
    const differences: string[] = [];
    for (const name of names) differences.push(...(await compareTable(source, target, name)));
    if (differences.length > 0) throw new Error(`source and target differ\n${differences.join("\n")}`);
  } finally {
    await Promise.all([source.end(), target.end()]);
  }
}

async function userTables(client: Client): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT format('%I.%I', n.nspname, c.relname) AS name
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
       AND n.nspname NOT IN ('information_schema', 'erserver') AND n.nspname !~ '^pg_'
     ORDER BY 1`,
  );
  return rows.map((row) => row.name);
}

async function compareTable(source: Client, target: Client, name: string): Promise<string[]> {
  const [left, right] = await Promise.all([describe(source, name), describe(target, name)]);
  if (left === undefined) return [`${name}: not on the source`];
  if (right === undefined) return [`${name}: not on the target`];
  const columns = [...left.columns.keys()].filter((column) => right.columns.has(column)).toSorted();
  if (columns.length === 0 && left.columns.size > 0) return [`${name}: no column in common`];
  const [a, b] = await Promise.all([buckets(source, left, columns), buckets(target, right, columns)]);
  const different = [...new Set([...a.keys(), ...b.keys()])].filter((key) => !isSame(a.get(key), b.get(key)));
  if (different.length === 0) return [];
  const read = firstBuckets(different, a, b);
  const [onlyLeft, onlyRight] = difference(
    await rowsOf(source, left, columns, read),
    await rowsOf(target, right, columns, read),
  );
  const lines = [
    ...onlyLeft.map((row) => ({ row, side: "source" })),
    ...onlyRight.map((row) => ({ row, side: "target" })),
  ].toSorted((x, y) => (x.row < y.row ? -1 : 1));
  return [
    `${name} (${columns.join(", ")}): ${count(a)} rows on the source, ${count(b)} on the target; among the differences`,
    ...lines.slice(0, 5).map(({ row, side }) => `  ${side} only: ${row}`),
  ];
}

/** As many of the buckets as can be read into memory without a thought. */
function firstBuckets(
  keys: readonly string[],
  a: ReadonlyMap<string, Bucket>,
  b: ReadonlyMap<string, Bucket>,
): string[] {
  let rows = 0;
  return keys.filter((key, index) => {
    rows += Number(a.get(key)?.rows ?? 0) + Number(b.get(key)?.rows ?? 0);
    return index === 0 || rows < 50_000;
  });
}

async function describe(client: Client, name: string): Promise<Table | undefined> {
  const { rows } = await client.query<{ from: string; column: string; type: string; element: string }>(
    `SELECT (CASE c.relkind WHEN 'r' THEN 'ONLY ' ELSE '' END) || format('%I.%I', n.nspname, c.relname) AS from,
            a.attname AS column, base.typname AS type, element.typname AS element
     FROM pg_class c
     JOIN pg_namespace n ON n.oid = c.relnamespace
     LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
     LEFT JOIN LATERAL (
       WITH RECURSIVE domain AS (
         SELECT t.* FROM pg_type t WHERE t.oid = a.atttypid
         UNION ALL SELECT t.* FROM pg_type t JOIN domain d ON d.typtype = 'd' AND t.oid = d.typbasetype)
       SELECT * FROM domain WHERE typtype <> 'd') base ON true
     LEFT JOIN pg_type element ON element.oid = base.typelem AND base.typlen = -1
     WHERE c.oid = to_regclass($1)`,
    [name],
  );
  const [first] = rows;
  if (first === undefined) return undefined;
  const columns = rows
    .filter((row) => row.column !== null)
    .map((row) => [row.column, expression(row)] as const);
  return { from: first.from, columns: new Map(columns) };
}

function expression({
  column,
  type,
  element,
}: {
  column: string;
  type: string;
  element: string | null;
}): string {
  const quoted = `t.${escapeIdentifier(column)}`;
  if (BINARY_TYPES.includes(type)) return `${sendFunction(type)}(${quoted}::${type})`;
  if (element !== null && BINARY_TYPES.includes(element)) return `array_send(${quoted}::${element}[])`;
  return quoted;
}

function sendFunction(type: string): string {
  if (type === "polygon") return "poly_send";
  return type.startsWith("float") ? `${type}send` : `${type}_send`;
}

/** The row as text, in UTF8 whatever the database's encoding is, and its MD5. */
const hashed = (table: Table, columns: readonly string[]): string =>
  `SELECT line, md5(line) AS md5 FROM (
     SELECT convert_to(ROW(${columns.map((column) => table.columns.get(column)).join(", ")})::text, 'UTF8') AS line FROM ${table.from} t) lines`;

const sumOfHalf = (from: 1 | 17): string =>
  `sum(('x' || substr(md5, ${from}, 16))::bit(64)::bigint::numeric)::text`;

/** Count and hash of the rows in 256 parts. A sum does not depend on the order, nor lose a duplicate. */
async function buckets(
  client: Client,
  table: Table,
  columns: readonly string[],
): Promise<Map<string, Bucket>> {
  const { rows } = await client.query<Bucket>(
    `SELECT substr(md5, 1, 2) AS bucket, count(*)::text AS rows, ${sumOfHalf(1)} || '/' || ${sumOfHalf(17)} AS hash
     FROM (${hashed(table, columns)}) hashed GROUP BY 1`,
  );
  return new Map(rows.map((row) => [row.bucket, row]));
}

async function rowsOf(
  client: Client,
  table: Table,
  columns: readonly string[],
  parts: readonly string[],
): Promise<string[]> {
  const { rows } = await client.query<{ line: string }>(
    `SELECT convert_from(line, 'UTF8') AS line FROM (${hashed(table, columns)}) hashed WHERE substr(md5, 1, 2) = ANY ($1)`,
    [parts],
  );
  return rows.map((row) => row.line);
}

const isSame = (a: Bucket | undefined, b: Bucket | undefined): boolean =>
  a?.rows === b?.rows && a?.hash === b?.hash;

function count(parts: ReadonlyMap<string, Bucket>): bigint {
  let total = 0n;
  for (const part of parts.values()) total += BigInt(part.rows);
  return total;
}

/** What each list has that the other has not, duplicates counted. */
function difference(left: readonly string[], right: readonly string[]): [string[], string[]] {
  const balance = new Map<string, number>();
  for (const row of left) balance.set(row, (balance.get(row) ?? 0) + 1);
  for (const row of right) balance.set(row, (balance.get(row) ?? 0) - 1);
  const only = (sign: 1 | -1): string[] =>
    [...balance].flatMap(([row, surplus]) => Array<string>(Math.max(0, sign * surplus)).fill(row));
  return [only(1), only(-1)];
}
