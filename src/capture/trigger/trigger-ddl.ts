import { createHash } from "node:crypto";
import { equalityOperator } from "../../postgres/catalog.ts";
import { quoteIdent, quoteQualified } from "../../quote/ident.ts";

/** A column of a table's key, and of its log. */
export interface KeyColumn {
  readonly name: string;
  /** Its type as SQL, of a domain the type that it is over. */
  readonly type: string;
  /** The column is of a domain: PostgreSQL finds no polymorphic operator, such as that of enums, for one. */
  readonly isDomain: boolean;
  /** Its collation, quoted and qualified; null for the default one and for none. */
  readonly collation: string | null;
  /** Schema of the type's own `=` operator, quoted; null for the one in pg_catalog. */
  readonly equalitySchema: string | null;
}

/** A table whose changes triggers record. */
export interface CaptureSpec {
  /** Number in erserver.captured_table. */
  readonly id: number;
  /** Empty for a table that is replaced whole when anything of it changes. */
  readonly key: readonly KeyColumn[];
  /** Column mode: an UPDATE is recorded when it changes one of these, or the key; null for all. */
  readonly columns: readonly string[] | null;
}

/** What a relation is to the captured table: the table itself, the root of its partition tree, a partition with or without its own. */
export type RelationRole = "table" | "root" | "branch" | "leaf";

const FUNCTION_NAMES = ["insert", "update", "delete", "truncate", "truncate_begin", "truncate_leaf"] as const;
type FunctionName = (typeof FUNCTION_NAMES)[number];

interface Trigger {
  readonly name: string;
  readonly when: string;
  readonly runs: FunctionName;
}

const OLD_ROWS = "erserver_old";
const NEW_ROWS = "erserver_new";

/** A statement fires the triggers of the relation that it names; TRUNCATE also those of the partitions of that. */
const ROW_TRIGGERS: readonly Trigger[] = [
  { name: "erserver_insert", when: "after insert", runs: "insert" },
  { name: "erserver_update", when: "after update", runs: "update" },
  { name: "erserver_delete", when: "after delete", runs: "delete" },
];
const TRUNCATE_TRIGGERS: Record<RelationRole, readonly Trigger[]> = {
  table: [{ name: "erserver_truncate", when: "after truncate", runs: "truncate" }],
  root: [
    { name: "erserver_truncate_begin", when: "before truncate", runs: "truncate_begin" },
    { name: "erserver_truncate", when: "after truncate", runs: "truncate" },
  ],
  branch: [],
  leaf: [{ name: "erserver_truncate_leaf", when: "before truncate", runs: "truncate_leaf" }],
};

function triggersOf(role: RelationRole): readonly Trigger[] {
  return [...ROW_TRIGGERS, ...TRUNCATE_TRIGGERS[role]];
}

/** Names of the triggers that a relation must have. */
export function triggerNames(role: RelationRole): string[] {
  return triggersOf(role).map(({ name }) => name);
}

export function logName(id: number): string {
  return `erserver.log_${id}`;
}

function functionName(id: number, name: FunctionName): string {
  return `erserver.capture_${id}_${name}`;
}

const INTEGERS = ["smallint", "integer", "bigint"];

/** Of any integer the widest: what ALTER TABLE makes of it tomorrow fits. */
function logType({ type }: KeyColumn): string {
  return INTEGERS.includes(type) ? "bigint" : type;
}

/** The log's key columns, in the key's order. */
export function logKey(key: readonly unknown[]): string[] {
  return key.map((_column, index) => `k${index + 1}`);
}

/**
 * A row for each change: its transaction's 64-bit number, by how much it changed the number of rows of this key (an UPDATE takes the
 * old one away and adds the new one), and the key. It is vacuumed for its garbage, which is all that it holds in the end.
 */
export function createLog({ id, key }: CaptureSpec): string | undefined {
  if (key.length === 0) return undefined;
  const keys = key.map((column, index) => `k${index + 1} ${logType(column)}`).join(", ");
  return `create table ${logName(id)} (xid bigint not null, ${keys}, delta smallint not null)
      with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000, autovacuum_analyze_threshold = 2000000000, toast.autovacuum_vacuum_scale_factor = 0);
    create index on ${logName(id)} (xid)`;
}

/**
 * The trigger functions. All names and operators in them are qualified and nothing else depends on the search_path, so it is not
 * set: that would cost each statement as much as the rest of the trigger (docs/adr/0013-trigger-capture.md). Columns are qualified
 * too, as plpgsql has variables of its own, such as `found`.
 */
export function createFunctions(spec: CaptureSpec): string {
  const { id, key, columns } = spec;
  const log = `insert into ${logName(id)} (xid, ${logKey(key).join(", ")}, delta)`;
  const keyOf = (rows: string): string => key.map(({ name }) => `${rows}.${quoteIdent(name)}`).join(", ");
  const added = `select pg_catalog.txid_current(), ${keyOf("n")}, 1 from ${NEW_ROWS} as n`;
  const removed = `select pg_catalog.txid_current(), ${keyOf("o")}, -1 from ${OLD_ROWS} as o`;
  const unless = (rows: string, other: string): string =>
    columns === null ? "" : ` where not exists (select from ${rows} as ${other} where ${sameRow(spec)})`;
  const mark = `insert into erserver.replacement (xid, captured_table) values (pg_catalog.txid_current(), ${id})`;
  const begun = (value: string): string =>
    `perform pg_catalog.set_config('erserver.truncating', '${value}', true)`;
  // Nobody knows them behind it. A statement that names the root fires the leaf's trigger too.
  const leafKeys = `if not pg_catalog.texteq(coalesce(pg_catalog.current_setting('erserver.truncating', true), ''), '${id}') then
    execute pg_catalog.format($sql$${log} select pg_catalog.txid_current(), ${keyOf("o")}, -1 from only %s as o$sql$, tg_relid::pg_catalog.regclass);
  end if`;
  const bodies: Record<FunctionName, string> =
    key.length === 0
      ? {
          insert: mark,
          update: mark,
          delete: mark,
          truncate: mark,
          truncate_begin: "null",
          truncate_leaf: mark,
        }
      : {
          insert: `${log} ${added}`,
          update: `${log} ${added}${unless(OLD_ROWS, "o")} union all ${removed}${unless(NEW_ROWS, "n")}`,
          delete: `${log} ${removed}`,
          truncate: `${mark}; ${begun("")}`,
          truncate_begin: begun(String(id)),
          truncate_leaf: leafKeys,
        };
  return FUNCTION_NAMES.map(
    (name) =>
      `create or replace function ${functionName(id, name)}() returns trigger language plpgsql security definer as $erserver$
begin
  ${bodies[name]};
  return null;
end
$erserver$`,
  ).join(";\n");
}

/** A column of the key, in the type that it is of in the end. */
export function keyValue(rows: string, { name, type, isDomain }: KeyColumn): string {
  return `${rows}.${quoteIdent(name)}${isDomain ? `::${type}` : ""}`;
}

/** Condition on `o` and `n`: one row before and after, with the same values in the columns that count. */
function sameRow({ key, columns }: CaptureSpec): string {
  const keys = key.map(
    (column) => `${keyValue("n", column)} ${equalityOperator(column)} ${keyValue("o", column)}`,
  );
  // Byte for byte, NULLs too: there are types without an operator for equality, and keys that are equal and look different.
  const names = [...new Set([...key.map(({ name }) => name), ...(columns ?? [])])];
  const image = (rows: string): string =>
    `row(${names.map((name) => `${rows}.${quoteIdent(name)}`).join(", ")})`;
  return [...keys, `pg_catalog.record_image_eq(${image("n")}, ${image("o")})`].join(" and ");
}

const REFERENCING: Partial<Record<FunctionName, string>> = {
  insert: ` referencing new table as ${NEW_ROWS}`,
  update: ` referencing old table as ${OLD_ROWS} new table as ${NEW_ROWS}`,
  delete: ` referencing old table as ${OLD_ROWS}`,
};

/**
 * The triggers of a relation. Needs SHARE ROW EXCLUSIVE: what wrote to it before has ended, and whatever writes to it later is
 * recorded. https://www.postgresql.org/docs/current/sql-createtrigger.html
 */
export function createTriggers(
  id: number,
  relation: { schema: string; name: string; role: RelationRole },
): string {
  const table = quoteQualified(relation.schema, relation.name);
  return triggersOf(relation.role)
    .map(
      ({ name, when, runs }) => `drop trigger if exists ${name} on ${table};
    create trigger ${name} ${when} on ${table}${REFERENCING[runs] ?? ""} for each statement execute procedure ${functionName(id, runs)}()`,
    )
    .join(";\n");
}

/** Removes log and functions, and with them the triggers. */
export function dropCapture(id: number): string {
  return `${dropFunctions(id)}; drop table if exists ${logName(id)}`;
}

/** With the triggers, for which it waits for the tables' writers. */
export function dropFunctions(id: number): string {
  return FUNCTION_NAMES.map((name) => `drop function if exists ${functionName(id, name)}() cascade`).join(
    "; ",
  );
}

/** Changes when functions or log are to be made otherwise. */
export function definitionOf(spec: CaptureSpec): string {
  return createHash("sha256")
    .update(`${createLog(spec) ?? ""}\n${createFunctions(spec)}`)
    .digest("hex");
}
