import type { Relation } from "../../change/relation.ts";
import { quoteIdent, quoteQualified } from "../../quote/ident.ts";
import { notSeenBy, type XidSnapshot } from "./snapshot.ts";
import { type KeyColumn, logKey, logName } from "./trigger-ddl.ts";

/** A captured table as one target wants it. */
export interface FollowedTable {
  /** Number in erserver.captured_table. */
  readonly id: number;
  /** Columns of the row images, in their order. */
  readonly relation: Relation;
  readonly partitioned: boolean;
  readonly key: readonly KeyColumn[];
  /**
   * Changed rows are deleted and inserted, not updated: where the target has a unique index beside the key, two rows may have
   * exchanged what it holds.
   */
  readonly rewrites: boolean;
}

/** How a row that is there now has to be written. */
export const INSERT = "i";
export const UPDATE = "u";

/** For each table one row: whether anything of it has changed that the snapshot does not see, and whether it was truncated. */
export function changedTablesQuery(tables: readonly { id: number; base: XidSnapshot }[]): string {
  return tables
    .map(
      ({ id, base }) =>
        `select exists (select from ${logName(id)} where ${notSeenBy(base, "xid")}), exists (select from erserver.truncation where captured_table = ${id} and ${notSeenBy(base, "xid")})`,
    )
    .join(" union all ");
}

/**
 * The keys of the rows to delete. By how much a key's rows have become more or fewer says what was there before: whatever is not there
 * now and was not there then is nothing to the target.
 */
export function removedQuery(table: FollowedTable, base: XidSnapshot): string {
  const keys = table.key.map(({ type }, index) => `l.k${index + 1}::${type}`).join(", ");
  const kept = table.rewrites ? ` or l.delta = 0 and exists (select from ${fromTable(table)} where ${joined(table)})` : "";
  return `select ${keys} from (${netChanges(table, base)}) as l where l.delta < 0${kept}`;
}

/**
 * The rows that have changed and are there, as of now, with `INSERT` or `UPDATE` in front. `truncated`: the target's table is empty.
 */
export function presentQuery(table: FollowedTable, base: XidSnapshot, truncated: boolean): string {
  const columns = table.relation.columns.map(({ name }) => `, t.${quoteIdent(name)}`).join("");
  const how =
    truncated || table.rewrites ? `'${INSERT}'` : `case l.delta when 0 then '${UPDATE}' else '${INSERT}' end`;
  return `select ${how}${columns} from (${netChanges(table, base)}) as l join ${fromTable(table)} on ${joined(table)}`;
}

function netChanges({ id, key }: FollowedTable, base: XidSnapshot): string {
  const keys = logKey(key).join(", ");
  return `select ${keys}, pg_catalog.sum(delta) as delta from ${logName(id)} where ${notSeenBy(base, "xid")} group by ${keys}`;
}

function fromTable({ relation, partitioned }: FollowedTable): string {
  return `${partitioned ? "" : "only "}${quoteQualified(relation.schema, relation.name)} as t`;
}

/** In the collation of the table's column, so that its index serves; two collations would not go together anyway. */
function joined({ key }: FollowedTable): string {
  return key
    .map(({ name, equalitySchema, collation }, index) => {
      const logged = `l.k${index + 1}${collation === null ? "" : ` collate ${collation}`}`;
      return `t.${quoteIdent(name)} operator(${equalitySchema ?? "pg_catalog"}.=) ${logged}`;
    })
    .join(" and ");
}
