import type { RemovedTable, TableResult } from "../../rserv/master.ts";
import { columnsText } from "../../rserv/registration.ts";

/** `public.customer added, column lastname`. */
export function addedText({ label, how, columns }: Pick<TableResult, "label" | "how" | "columns">): string {
  return `${label} ${how === "already" ? "already added" : how}, ${columnsText({ columns })}`;
}

/** `public.customer removed`; undefined: it was not there. */
export function removedText(table: string, result: Omit<RemovedTable, "wantedBy"> | undefined): string {
  if (result === undefined) return `${table} is not registered; nothing to remove`;
  const { label, columns } = result;
  return columns === undefined ? `${label} removed` : `${label} goes on with ${columnsText({ columns })}`;
}
