import type { Relation } from "../../change/relation.ts";
import { equalityOperator } from "../../postgres/catalog.ts";
import { quoteIdent, quoteQualified } from "../../quote/ident.ts";
import { notSeenBy, type XidSnapshot } from "./snapshot.ts";
import { type KeyColumn, keyValue, logKey, logName } from "./trigger-ddl.ts";

/** A captured table as one target wants it. */
export interface FollowedTable {
  /** Number in erserver.captured_table. */
  readonly id: number;
  /** Columns of the row images, in their order. */
  readonly relation: Relation;
  readonly partitioned: boolean;
  /** Empty for a table that is replaced whole. */
  readonly key: readonly KeyColumn[];
  /**
   * Changed rows are deleted and inserted, not updated: where the target has a unique index beside the key, two rows may have
   * exchanged what it holds.
   */
  readonly rewrites: boolean;
}

/** How a row that is there now has to be written. */
export const INSERT = "i";
const UPDATE = "u";

/**
 * For each table one row: whether any of its keys was logged that the snapshot does not see, and whether all its rows went, or are to
 * be replaced. Without a snapshot they are.
 */
export function changedTablesQuery(
  tables: readonly { table: FollowedTable; base: XidSnapshot | undefined }[],
): string {
  return tables
    .map(({ table: { id, key }, base }) => {
      if (base === undefined) return "select false, true";
      const isNew = notSeenBy(base, "xid");
      const logged = key.length === 0 ? "false" : `exists (select from ${logName(id)} where ${isNew})`;
      return `select ${logged}, exists (select from erserver.replacement where captured_table = ${id} and ${isNew})`;
    })
    .join(" union all ");
}

/**
 * The keys of the rows to delete. By how much a key's rows have become more or fewer says what was there before: whatever is not there
 * now and was not there then is nothing to the target.
 */
export function removedQuery(table: FollowedTable, base: XidSnapshot): string {
  const keys = table.key.map(({ type }, index) => `l.k${index + 1}::${type}`).join(", ");
  const kept = table.rewrites
    ? ` or l.delta = 0 and exists (select from ${fromTable(table)} where ${joined(table)})`
    : "";
  return `select ${keys} from (${netChanges(table, base)}) as l where l.delta < 0${kept}`;
}

/**
 * The rows that have changed and are there, as of now, with `INSERT` or `UPDATE` in front. `truncated`: the target's table is empty. Of
 * a table without a key, or of which the target has nothing that counts, all rows.
 */
export function presentQuery(
  table: FollowedTable,
  base: XidSnapshot | undefined,
  truncated: boolean,
): string {
  if (base === undefined || table.key.length === 0)
    return `select '${INSERT}'${columnsOf(table)} from ${fromTable(table)}`;
  const how =
    truncated || table.rewrites ? `'${INSERT}'` : `case l.delta when 0 then '${UPDATE}' else '${INSERT}' end`;
  return `select ${how}${columnsOf(table)} from (${netChanges(table, base)}) as l join ${fromTable(table)} on ${joined(table)}`;
}

function columnsOf({ relation }: FollowedTable): string {
  return relation.columns.map(({ name }) => `, t.${quoteIdent(name)}`).join("");
}

/** Keys that the table takes for one come as one. */
function netChanges({ id, key }: FollowedTable, base: XidSnapshot): string {
  const columns = logKey(key);
  const values = columns.map((name, index) => `${name}${collated(key[index] as KeyColumn)}`);
  const named = columns.map((name, index) => `${values[index]} as ${name}`).join(", ");
  return `select ${named}, pg_catalog.sum(delta) as delta from ${logName(id)} where ${notSeenBy(base, "xid")} group by ${values.join(", ")}`;
}

function collated({ collation }: KeyColumn): string {
  return collation === null ? "" : ` collate ${collation}`;
}

function fromTable({ relation, partitioned }: FollowedTable): string {
  return `${partitioned ? "" : "only "}${quoteQualified(relation.schema, relation.name)} as t`;
}

/** In the collation of the table's column, so that its index serves; two collations would not go together anyway. */
function joined({ key }: FollowedTable): string {
  return key
    .map(
      (column, index) =>
        `${keyValue("t", column)} ${equalityOperator(column)} l.k${index + 1}${collated(column)}`,
    )
    .join(" and ");
}
