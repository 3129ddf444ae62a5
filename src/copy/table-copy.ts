import { formatLsn, type Lsn } from "../change/lsn.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { ServerError } from "../errors/server-error.ts";
import { SQLSTATE } from "../errors/sqlstate.ts";
import { withoutValues } from "../observability/redact.ts";
import { type Catalogue, type CatalogTable, tableLabel } from "../postgres/catalog.ts";
import { isPassing, passingFailure } from "../postgres/failures.ts";
import { isRewritten } from "../postgres/rewritten.ts";
import type { ReplicatedTable } from "../postgres/selection.ts";
import { quoteIdent, quoteQualified } from "../quote/ident.ts";
import { quoteLiteral } from "../quote/literal.ts";
import type { WireConnection } from "../wire/connection.ts";
import { createStaging, type Merge, mergeStaging, STAGING } from "./reconcile.ts";
import { lockUnchanged } from "./snapshot-reader.ts";

export interface TableCopy {
  /** In a transaction with the snapshot that the copy shows. */
  readonly source: WireConnection;
  /** A writer session outside of a transaction. */
  readonly target: WireConnection;
  readonly catalogues: { readonly source: Catalogue; readonly target: Catalogue };
  readonly table: ReplicatedTable;
  readonly targetTable: CatalogTable;
  readonly pipeline: string;
  /** Proof that this copy is the one that was claimed last. */
  readonly token: string;
  /** Position of the snapshot. */
  readonly copyLsn: Lsn;
  /** The snapshot itself, where it is what positions are made of. */
  readonly copySnapshot: string | undefined;
  /** Values may travel in PostgreSQL's binary form. */
  readonly binary: boolean;
  /** The target table has rows: they are made equal to the source's, and those that are equal are left alone. Undefined when it is empty. */
  readonly reconcile: Pick<Merge, "unique"> | undefined;
  /** Called now and then with the bytes relayed since the last call. */
  readonly onBytes: (bytes: number) => void;
}

/** The columns that both sides have, in the source's order. */
export function copiedColumns(table: ReplicatedTable, target: CatalogTable): string[] {
  const writable = new Set(target.columns.filter((column) => !column.generated).map((column) => column.name));
  return table.columns.filter((name) => writable.has(name));
}

/** Binary where every column's bytes mean the same on both servers. */
function copyFormat(table: ReplicatedTable, columns: readonly string[]): "binary" | "text" {
  const safe = table.source.columns.every((column) => column.binarySafe || !columns.includes(column.name));
  return safe ? "binary" : "text";
}

/**
 * Copies one table and records it as copied, in one target transaction: after a crash the table is empty or
 * complete. CopyData frames go from server to server as they are. Returns the rows copied; undefined when a table is not
 * what it was planned as, or the snapshot cannot show it any more, and nothing was copied.
 */
export async function copyTable(copy: TableCopy): Promise<number | undefined> {
  const { source, target, catalogues, table, targetTable } = copy;
  await target.query("begin");
  try {
    const unchanged =
      (await lockUnchanged(source, catalogues.source, table.source)) &&
      (await lockUnchanged(target, catalogues.target, targetTable));
    const rows = unchanged ? await relay(copy) : undefined;
    if (rows === undefined || (await isRewritten(source, table.source.oid))) {
      await target.query("rollback");
      return undefined;
    }
    await recordCopy(target, copy, rows);
    await target.query("commit");
    return rows;
  } catch (error) {
    if (!(error instanceof ServerError)) throw error;
    if (isPassing(error.code)) throw passingFailure(error, error.code);
    // The source's session stays in its transaction, which an error of its own has failed.
    throw copyFailure(error, source.transactionStatus === "E" ? "source" : "target", copy);
  }
}

async function relay({
  source,
  target,
  table,
  targetTable,
  binary,
  reconcile,
  onBytes,
}: TableCopy): Promise<number> {
  const columns = copiedColumns(table, targetTable);
  if (reconcile !== undefined) await target.query(createStaging(targetTable, columns));
  const names = columns.map(quoteIdent).join(", ");
  const format = `(format ${binary ? copyFormat(table, columns) : "text"})`;
  const from = quoteQualified(table.source.schema, table.source.name);
  const only = table.source.partitioned ? "" : "only ";
  const where = table.where === undefined ? "" : ` where (${table.where})`;
  // A table may have no columns at all, but not a list of none.
  const list = columns.length === 0 ? "" : ` (${names})`;
  const copyIn = await target.copyIn(
    `copy ${reconcile !== undefined ? STAGING : quoteQualified(targetTable.schema, targetTable.name)}${list} from stdin ${format}`,
  );
  for await (const frames of source.copyOut(
    `copy (select ${names} from ${only}${from}${where}) to stdout ${format}`,
  )) {
    await copyIn.writeFrames(frames);
    onBytes(frames.length);
  }
  const rows = await copyIn.done();
  if (reconcile === undefined) return rows;
  const merge = { target: targetTable, columns, key: table.source.identityColumns, ...reconcile };
  for (const sql of mergeStaging(merge)) await target.query(sql);
  return rows;
}

type Side = "source" | "target";

function copyFailure(error: ServerError, side: Side, copy: TableCopy): ErserverError {
  const { schema, name } = side === "source" ? copy.table.source : copy.targetTable;
  const label = tableLabel(schema, name);
  return new ErserverError(
    error.code === SQLSTATE.insufficientPrivilege ? "ERS-304" : "ERS-701",
    `the copy of ${label} failed on the ${side}: ${withoutValues(error.message, error.code)} (SQLSTATE ${error.code})`,
    {
      subject: label,
      remedy: `${remedyFor(error, side, label)}; then start erserver again: tables that were copied are not copied again.`,
      cause: error,
    },
  );
}

function remedyFor({ code }: ServerError, side: Side, label: string): string {
  if (code === SQLSTATE.insufficientPrivilege) {
    const privileges = side === "source" ? "SELECT" : "SELECT, INSERT, UPDATE, DELETE, TRUNCATE";
    return `Run for the role in the configuration, on the ${side}: GRANT ${privileges} ON ${label} TO its role`;
  }
  if (code === SQLSTATE.untranslatableCharacter)
    return "The target's encoding cannot hold a character of the source: copy to a database in UTF8";
  if (code === SQLSTATE.foreignKeyViolation)
    return "Let the role set session_replication_role (superuser, or GRANT SET ON PARAMETER session_replication_role from 15 on), or drop the target's foreign keys for the first copy";
  return side === "source"
    ? "Correct the table on the source (or its row filter in the configuration)"
    : "Correct the table on the target (or the privileges)";
}

/** Records the table as copied in the open transaction; fails when another replicator has claimed the copy since. */
export async function recordCopy(
  target: WireConnection,
  copy: Pick<TableCopy, "pipeline" | "table" | "token" | "copyLsn" | "copySnapshot">,
  rows: number,
): Promise<void> {
  const { schema, name } = copy.table.source;
  const [result] = await target.query(
    `update erserver.table_state set state = 'finished_copy', copy_lsn = ${quoteLiteral(formatLsn(copy.copyLsn))},
       copy_snapshot = ${copy.copySnapshot === undefined ? "null" : quoteLiteral(copy.copySnapshot)}, rows_copied = ${rows}, state_since = now()
     where pipeline = ${quoteLiteral(copy.pipeline)} and source_schema = ${quoteLiteral(schema)} and source_table = ${quoteLiteral(name)}
       and state = 'data_sync' and copier = ${quoteLiteral(copy.token)}`,
  );
  if (result?.command === "UPDATE 1") return;
  throw new ErserverError(
    "ERS-706",
    `the copy of ${tableLabel(schema, name)} was taken over by another replicator`,
    {
      subject: tableLabel(schema, name),
      remedy: "Make sure that one replicator serves this target.",
    },
  );
}
