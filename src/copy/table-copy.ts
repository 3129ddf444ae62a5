import { formatLsn, type Lsn } from "../change/lsn.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { ServerError } from "../errors/server-error.ts";
import { SQLSTATE } from "../errors/sqlstate.ts";
import { withoutValues } from "../observability/redact.ts";
import { type CatalogTable, tableLabel } from "../postgres/catalog.ts";
import { isPassing, passingFailure } from "../postgres/failures.ts";
import type { ReplicatedTable } from "../postgres/selection.ts";
import { quoteIdent, quoteQualified } from "../quote/ident.ts";
import { quoteLiteral } from "../quote/literal.ts";
import type { WireConnection } from "../wire/connection.ts";
import { isRewritten } from "./snapshot-reader.ts";

export interface TableCopy {
  /** In a transaction with the snapshot that the copy shows. */
  readonly source: WireConnection;
  /** A writer session outside of a transaction. */
  readonly target: WireConnection;
  readonly table: ReplicatedTable;
  readonly targetTable: CatalogTable;
  readonly pipeline: string;
  /** Proof that this copy is the one that was claimed last. */
  readonly token: string;
  /** Position of the snapshot. */
  readonly copyLsn: Lsn;
  /** Values may travel in PostgreSQL's binary form. */
  readonly binary: boolean;
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
 * complete. CopyData frames go from server to server as they are. Returns the rows copied; undefined when the snapshot
 * cannot show the table any more, and nothing was copied.
 */
export async function copyTable(copy: TableCopy): Promise<number | undefined> {
  const { source, target, table, targetTable } = copy;
  const columns = copiedColumns(table, targetTable);
  const names = columns.map(quoteIdent).join(", ");
  const format = `(format ${copy.binary ? copyFormat(table, columns) : "text"})`;
  const from = quoteQualified(table.source.schema, table.source.name);
  const only = table.source.partitioned ? "" : "only ";
  const where = table.where === undefined ? "" : ` where (${table.where})`;
  await target.query("begin");
  try {
    // A table may have no columns at all, but not a list of none.
    const list = columns.length === 0 ? "" : ` (${names})`;
    const copyIn = await target.copyIn(
      `copy ${quoteQualified(targetTable.schema, targetTable.name)}${list} from stdin ${format}`,
    );
    for await (const frames of source.copyOut(
      `copy (select ${names} from ${only}${from}${where}) to stdout ${format}`,
    )) {
      await copyIn.writeFrames(frames);
      copy.onBytes(frames.length);
    }
    const rows = await copyIn.done();
    if (await isRewritten(source, table.source)) {
      await target.query("rollback");
      return undefined;
    }
    await recordCopy(target, copy, rows);
    await target.query("commit");
    return rows;
  } catch (error) {
    if (!(error instanceof ServerError)) throw error;
    if (isPassing(error.code)) throw passingFailure(error, error.code);
    const label = tableLabel(targetTable.schema, targetTable.name);
    throw new ErserverError(
      error.code === SQLSTATE.insufficientPrivilege ? "ERS-304" : "ERS-701",
      `the copy of ${label} failed: ${withoutValues(error.message, error.code)} (SQLSTATE ${error.code})`,
      {
        subject: label,
        remedy: `${remedyFor(error, copy)}; then start erserver again: tables that were copied are not copied again.`,
        cause: error,
      },
    );
  }
}

function remedyFor({ code }: ServerError, { table, targetTable }: TableCopy): string {
  if (code === SQLSTATE.insufficientPrivilege) {
    const { source } = table;
    return `Run for the roles in the configuration, on the source: GRANT SELECT ON ${tableLabel(source.schema, source.name)} TO its role; on the target: GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ${tableLabel(targetTable.schema, targetTable.name)} TO its role`;
  }
  if (code === SQLSTATE.untranslatableCharacter)
    return "The target's encoding cannot hold a character of the source: copy to a database in UTF8";
  return code === SQLSTATE.foreignKeyViolation
    ? "Let the role set session_replication_role (superuser, or GRANT SET ON PARAMETER session_replication_role from 15 on), or drop the target's foreign keys for the first copy"
    : "Correct the table on the target (or the privileges)";
}

/** Records the table as copied in the open transaction; fails when another replicator has claimed the copy since. */
export async function recordCopy(
  target: WireConnection,
  copy: Pick<TableCopy, "pipeline" | "table" | "token" | "copyLsn">,
  rows: number,
): Promise<void> {
  const { schema, name } = copy.table.source;
  const [result] = await target.query(
    `update erserver.table_state set state = 'finished_copy', copy_lsn = ${quoteLiteral(formatLsn(copy.copyLsn))}, rows_copied = ${rows}, state_since = now()
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
