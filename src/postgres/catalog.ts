import { isDeepStrictEqual } from "node:util";
import type { ReplicaIdentity } from "../change/relation.ts";
import type { ControlSession } from "./connect.ts";

/** FirstGenbkiObjectId: the sources of PostgreSQL give out the OIDs below it, the same in every version. */
export const FIRST_UNFIXED_OID = 10_000;

export interface CatalogColumn {
  readonly name: string;
  readonly typeOid: number;
  /** Name without type modifier, schema-qualified unless built in: equal names mean equal types on both sides. */
  readonly typeName: string;
  /** Between the elements of an array of the type, as text: pg_type.typdelim. */
  readonly delimiter: string;
  /** atttypmod, such as the length of a varchar; of a domain the one that it gives the type that it is over. -1 for none. */
  readonly typeModifier: number;
  /** OID of the type, of a domain the type that it is over in the end. */
  readonly baseTypeOid: number;
  /** As in ALTER TABLE … ADD COLUMN, so that the rows that are there already get the value that they have here; undefined when they may differ. */
  readonly definition: string | undefined;
  readonly notNull: boolean;
  readonly hasDefault: boolean;
  /** Computed by the server (GENERATED ALWAYS AS (…)), stored or virtual. */
  readonly generated: boolean;
  /** Generated when it is read: it has no stored value. */
  readonly virtual: boolean;
  /** `a` GENERATED ALWAYS AS IDENTITY, `d` BY DEFAULT, empty for none. */
  readonly identity: "" | "a" | "d";
  /** Its binary form means the same on every server: built-in types and enums, and domains and arrays of built-in ones. */
  readonly binarySafe: boolean;
  /** A row type, or a domain over one. */
  readonly composite: boolean;
  /** Of a domain: the type that it is over in the end, as SQL. PostgreSQL finds no polymorphic operator for a domain itself. */
  readonly baseType: string | null;
  /** Schema of the type's own `=` operator, quoted by the server; null for polymorphic equality, which is in pg_catalog. */
  readonly equalitySchema: string | null;
}

/** An ordinary or partitioned table as the catalogue of one side describes it. */
export interface CatalogTable {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  readonly partitioned: boolean;
  readonly unlogged: boolean;
  /** The topmost partitioned table that this is a partition of. */
  readonly root: { readonly schema: string; readonly name: string } | undefined;
  readonly replicaIdentity: ReplicaIdentity;
  /** The columns that UPDATE and DELETE identify a row by under `default` and `index`; empty when there is none. */
  readonly identityColumns: readonly string[];
  /** Column sets of the usable unique indexes: immediate, not partial, no expressions, all columns NOT NULL; the primary key first. */
  readonly uniqueKeys: readonly (readonly string[])[];
  /** Of SELECT, INSERT, UPDATE, DELETE and TRUNCATE, and USAGE for its schema, what the role lacks. */
  readonly missingPrivileges: readonly string[];
  /** In attribute order, dropped columns left out. */
  readonly columns: readonly CatalogColumn[];
}

export function tableKey(schema: string, name: string): string {
  return JSON.stringify([schema, name]);
}

/** How a table is shown to people: quoted only where needed. */
export function tableLabel(schema: string, name: string): string {
  const part = (text: string): string =>
    /^[a-z_][a-z0-9_$]*$/.test(text) ? text : `"${text.replaceAll('"', '""')}"`;
  return `${part(schema)}.${part(name)}`;
}

/** For a sentence about several. */
export function tableLabels(tables: readonly { readonly schema: string; readonly name: string }[]): string {
  return tables.map(({ schema, name }) => tableLabel(schema, name)).join(", ");
}

/** `=` of the column's own type, wherever an extension put it. */
export function equalityOperator({ equalitySchema }: Pick<CatalogColumn, "equalitySchema">): string {
  return `operator(${equalitySchema ?? "pg_catalog"}.=)`;
}

interface TableRow {
  oid: string;
  schema: string;
  name: string;
  kind: "r" | "p";
  persistence: "p" | "u" | "t";
  root_schema: string | null;
  root_name: string | null;
  missing: string;
  identity: "d" | "n" | "f" | "i";
}

interface ColumnRow {
  oid: string;
  name: string;
  type_oid: string;
  delimiter: string;
  type_name: string;
  type_modifier: string;
  base_type_oid: string;
  definition: string | null;
  not_null: string;
  has_default: string;
  generated: string;
  identity: "" | "a" | "d";
  binary_safe: string;
  composite: string;
  base_type: string | null;
  equality_schema: string | null;
}

interface IndexRow {
  oid: string;
  is_primary: string;
  is_identity: string;
  all_not_null: string;
  columns: string;
}

const USER_TABLES = `c.relkind in ('r', 'p') and c.relpersistence <> 't'
    and n.nspname not in ('pg_catalog', 'information_schema', 'erserver') and n.nspname !~ '^pg_(toast|temp)'`;

/** One row per user table. pg_partition_root and pg_partition_tree came with 12, so the tree is walked by hand. */
const TABLES = `
  with recursive up(oid, ancestor, depth) as (
      select c.oid, i.inhparent, 1 from pg_catalog.pg_class c join pg_catalog.pg_inherits i on i.inhrelid = c.oid where c.relispartition
      union all
      select up.oid, i.inhparent, up.depth + 1 from up
      join pg_catalog.pg_class c on c.oid = up.ancestor and c.relispartition join pg_catalog.pg_inherits i on i.inhrelid = c.oid
    ),
    roots as (select distinct on (oid) oid, ancestor from up order by oid, depth desc)
  select c.oid, n.nspname as schema, c.relname as name, c.relkind as kind, c.relpersistence as persistence,
    rn.nspname as root_schema, rc.relname as root_name, c.relreplident as identity,
    (select coalesce(pg_catalog.json_agg(p), '[]') from pg_catalog.unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'USAGE']) as p
      where not case when p = 'USAGE' then pg_catalog.has_schema_privilege(n.oid, p) when p in ('DELETE', 'TRUNCATE') then pg_catalog.has_table_privilege(c.oid, p)
        else pg_catalog.has_table_privilege(c.oid, p) or pg_catalog.has_any_column_privilege(c.oid, p) end)::text as missing
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    left join roots on roots.oid = c.oid
    left join pg_catalog.pg_class rc on rc.oid = roots.ancestor left join pg_catalog.pg_namespace rn on rn.oid = rc.relnamespace
  where ${USER_TABLES}
  order by n.nspname, c.relname`;

/**
 * Binary-safe: there is a send function, and what it writes holds no OID and no version-dependent layout. The `reg…`
 * types send OIDs. Arrays send their element's OID, which is fixed for the types that have theirs from PostgreSQL's
 * sources; initdb numbers the others anew in every version (those of information_schema, for instance). The receive functions
 * of `tsquery`, `oidvector` and `int2vector` refuse the empty value that their send functions write.
 */
const columnsQuery = (version: number, condition = ""): string => `
  select a.attrelid as oid, a.attname as name, a.atttypid as type_oid, t.typdelim as delimiter, pg_catalog.format_type(a.atttypid, -1) as type_name,
    case when t.typtype = 'd' then base.modifier else a.atttypmod end as type_modifier, base.oid as base_type_oid,
    pg_catalog.quote_ident(a.attname) || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod)
      || case ${version >= 110_000 ? "when a.atthasmissing then ' DEFAULT ' || pg_catalog.quote_literal((a.attmissingval::text::text[])[1])" : ""} when a.atthasdef or a.attidentity <> '' then null else '' end as definition,
    a.attnotnull::text as not_null, a.atthasdef::text as has_default, ${version >= 120_000 ? "a.attgenerated::text" : "''"} as generated, a.attidentity as identity,
    (case when base.typtype = 'e' then true
          when base.oid >= ${FIRST_UNFIXED_OID} then false
          else base.typtype in ('b', 'r', 'm') and base.typname !~ '^_?(reg|tsquery|oidvector|int2vector)' and base.typsend <> 0
            and not exists (select 1 from pg_catalog.pg_type e where e.oid = base.typelem and e.typsend = 0) end)::text as binary_safe,
    (base.typtype = 'c')::text as composite,
    case when t.typtype = 'd' then pg_catalog.format_type(base.oid, -1) end as base_type,
    (select pg_catalog.quote_ident(o_n.nspname) from pg_catalog.pg_operator o join pg_catalog.pg_namespace o_n on o_n.oid = o.oprnamespace
      where o.oprname = '=' and o.oprleft = base.oid and o.oprright = base.oid limit 1) as equality_schema
  from pg_catalog.pg_attribute a
    join pg_catalog.pg_class c on c.oid = a.attrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    join pg_catalog.pg_type t on t.oid = a.atttypid
    cross join lateral (
      with recursive d(oid, typtype, typbasetype, typname, typsend, typelem, modifier) as (
        select t.oid, t.typtype, t.typbasetype, t.typname, t.typsend::oid, t.typelem, t.typtypmod
        union all select b.oid, b.typtype, b.typbasetype, b.typname, b.typsend::oid, b.typelem, case d.modifier when -1 then b.typtypmod else d.modifier end from d join pg_catalog.pg_type b on b.oid = d.typbasetype)
      select d.* from d where d.typtype <> 'd') base
  where a.attnum > 0 and not a.attisdropped and ${USER_TABLES} ${condition}
  order by a.attrelid, a.attnum`;

/** Unique indexes that can identify a row. indnkeyatts came with 11. */
const indexesQuery = (keyCount: string): string => `
  select i.indrelid as oid, i.indisprimary::text as is_primary, i.indisreplident::text as is_identity,
    pg_catalog.bool_and(a.attnotnull)::text as all_not_null,
    pg_catalog.json_agg(a.attname order by k.position)::text as columns
  from pg_catalog.pg_index i
    join pg_catalog.pg_class c on c.oid = i.indrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    cross join lateral pg_catalog.unnest(i.indkey::int2[]) with ordinality as k(attnum, position)
    join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
  where i.indisunique and i.indimmediate and i.indisvalid and i.indpred is null and i.indexprs is null
    and k.position <= ${keyCount} and ${USER_TABLES}
  group by i.indexrelid, i.indrelid, i.indisprimary, i.indisreplident
  order by i.indrelid, i.indisprimary desc, i.indexrelid`;

const IDENTITIES = { d: "default", n: "nothing", f: "full", i: "index" } as const;

/** Reads every user table of the database, permanent and unlogged, in name order. */
export async function readTables(session: ControlSession, version: number): Promise<CatalogTable[]> {
  const [tables, columns, indexes] = await Promise.all([
    session.query<TableRow>(TABLES),
    session.query<ColumnRow>(columnsQuery(version)),
    session.query<IndexRow>(indexesQuery(version >= 110_000 ? "i.indnkeyatts" : "i.indnatts")),
  ]);
  const columnsOf = groupBy(columns, (row) => row.oid);
  const indexesOf = groupBy(indexes, (row) => row.oid);
  return tables.map((row) => toTable(row, columnsOf.get(row.oid) ?? [], indexesOf.get(row.oid) ?? []));
}

/** A session that reads a server's catalogue, and the server's version. */
export interface Catalogue {
  readonly session: ControlSession;
  readonly version: number;
}

/** Whether the table of this name is still the same one, with the same columns. */
export async function isUnchanged({ session, version }: Catalogue, table: CatalogTable): Promise<boolean> {
  const rows = await session.query<ColumnRow>(
    columnsQuery(version, "and n.nspname = $1 and c.relname = $2"),
    [table.schema, table.name],
  );
  return (
    rows.every(({ oid }) => Number(oid) === table.oid) && isDeepStrictEqual(rows.map(toColumn), table.columns)
  );
}

/** How to add a column of this table elsewhere: see `CatalogColumn.definition`. */
export function definitionOf(table: CatalogTable | undefined, column: string): string | undefined {
  return table?.columns.find(({ name }) => name === column)?.definition;
}

/** The tables by `tableKey`. */
export function tablesByKey(tables: readonly CatalogTable[]): Map<string, CatalogTable> {
  return new Map(tables.map((table) => [tableKey(table.schema, table.name), table]));
}

/** For `with recursive`: the tables of parameter $1, by OID, each as the root of itself and all its partitions. */
export const PARTITION_TREES = `tree(root, oid) as (
    select t.oid, t.oid from pg_catalog.unnest($1::oid[]) as t(oid) union all
    select tree.root, i.inhrelid from tree join pg_catalog.pg_class p on p.oid = tree.oid and p.relkind = 'p' join pg_catalog.pg_inherits i on i.inhparent = p.oid)`;

/** Bytes of the heap and its TOAST, of all partitions, by OID. Waits for whoever has a table locked for himself. */
export async function readTableSizes(
  session: ControlSession,
  oids: readonly number[],
): Promise<Map<number, number>> {
  const rows = await session.query<{ oid: string; bytes: string }>(
    `with recursive ${PARTITION_TREES}
     select root as oid, coalesce(sum(pg_catalog.pg_table_size(oid)), 0)::bigint as bytes from tree group by root`,
    [oids],
  );
  return new Map(rows.map(({ oid, bytes }) => [Number(oid), Number(bytes)]));
}

/** Every foreign key, by `tableKey`. */
export async function readReferences(session: ControlSession): Promise<{ from: string; to: string }[]> {
  const rows = await session.query<Record<"schema" | "name" | "to_schema" | "to_name", string>>(
    `select n.nspname as schema, c.relname as name, tn.nspname as to_schema, t.relname as to_name from pg_catalog.pg_constraint f
       join pg_catalog.pg_class c on c.oid = f.conrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       join pg_catalog.pg_class t on t.oid = f.confrelid join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace
     where f.contype = 'f'`,
  );
  return rows.map((row) => ({
    from: tableKey(row.schema, row.name),
    to: tableKey(row.to_schema, row.to_name),
  }));
}

function toTable(row: TableRow, columns: readonly ColumnRow[], indexes: readonly IndexRow[]): CatalogTable {
  const columnsOfIndex = (index: IndexRow | undefined): string[] =>
    index === undefined ? [] : (JSON.parse(index.columns) as string[]);
  const identityIndex =
    row.identity === "d"
      ? indexes.find((index) => index.is_primary === "true")
      : row.identity === "i"
        ? indexes.find((index) => index.is_identity === "true")
        : undefined;
  return {
    oid: Number(row.oid),
    schema: row.schema,
    name: row.name,
    partitioned: row.kind === "p",
    unlogged: row.persistence === "u",
    root:
      row.root_schema === null || row.root_name === null
        ? undefined
        : { schema: row.root_schema, name: row.root_name },
    replicaIdentity: IDENTITIES[row.identity],
    identityColumns: columnsOfIndex(identityIndex),
    uniqueKeys: indexes.filter((index) => index.all_not_null === "true").map(columnsOfIndex),
    missingPrivileges: JSON.parse(row.missing) as string[],
    columns: columns.map(toColumn),
  };
}

function toColumn(row: ColumnRow): CatalogColumn {
  return {
    name: row.name,
    typeOid: Number(row.type_oid),
    typeName: row.type_name,
    delimiter: row.delimiter,
    typeModifier: Number(row.type_modifier),
    baseTypeOid: Number(row.base_type_oid),
    definition: row.definition ?? undefined,
    notNull: row.not_null === "true",
    hasDefault: row.has_default === "true",
    generated: row.generated !== "",
    virtual: row.generated === "v",
    identity: row.identity,
    binarySafe: row.binary_safe === "true",
    composite: row.composite === "true",
    baseType: row.base_type,
    equalitySchema: row.equality_schema,
  };
}

function groupBy<Row>(rows: readonly Row[], keyOf: (row: Row) => string): Map<string, Row[]> {
  const groups = new Map<string, Row[]>();
  for (const row of rows) {
    const group = groups.get(keyOf(row));
    if (group === undefined) groups.set(keyOf(row), [row]);
    else group.push(row);
  }
  return groups;
}
