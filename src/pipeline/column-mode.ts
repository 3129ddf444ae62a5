import { captureExists } from "../capture/trigger/consumers.ts";
import { tableLabel } from "../postgres/catalog.ts";
import type { ControlSession } from "../postgres/connect.ts";
import type { Selection, TableProblem } from "../postgres/selection.ts";

/** A table of which an UPDATE is replicated only when it changes one of some columns, or the key. */
export interface ColumnModeTable {
  readonly oid: number;
  readonly label: string;
  readonly columns: readonly string[];
}

/** Which of the selected tables are so, by what `MasterAddTable` was told. */
export async function readColumnMode(
  source: ControlSession,
  { tables }: Pick<Selection, "tables">,
): Promise<ColumnModeTable[]> {
  if (!(await captureExists(source))) return [];
  const rows = await source.query<{ oid: string; columns: string }>(
    "select relation::text as oid, pg_catalog.to_json(columns)::text as columns from erserver.captured_table where columns is not null and relation = any ($1::oid[])",
    [tables.map((table) => table.source.oid)],
  );
  const columnsOf = new Map(rows.map(({ oid, columns }) => [Number(oid), JSON.parse(columns) as string[]]));
  return tables.flatMap(({ source: { oid, schema, name } }) => {
    const columns = columnsOf.get(oid);
    return columns === undefined ? [] : [{ oid, label: tableLabel(schema, name), columns }];
  });
}

export function columnModeProblem({ label, columns }: ColumnModeTable): TableProblem {
  return {
    code: "ERS-308",
    table: label,
    message: `${label} is replicated by column: an UPDATE that changes none of ${columns.join(", ")} and not the key stays on the source, and the target differs`,
    remedy: `To replicate all of it: MasterAddTable SOURCEDB ${label}.`,
    blocks: false,
  };
}
