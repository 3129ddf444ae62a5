import type { RemovedTable, TableResult } from "../../rserv/master.ts";
import { columnsText } from "../../rserv/registration.ts";

const HOW = { added: "added", widened: "widened", already: "already added" } as const;

/** `public.customer added, column lastname`. */
export function addedText({ label, how, columns }: Pick<TableResult, "label" | "how" | "columns">): string {
  return `${label} ${HOW[how]}, ${columnsText({ columns })}`;
}

/** `public.customer removed`; undefined: it was not there. */
export function removedText(table: string, result: Omit<RemovedTable, "wantedBy"> | undefined): string {
  if (result === undefined) return `${table} is not registered; nothing to remove`;
  const { label, columns } = result;
  return columns === undefined ? `${label} removed` : `${label} goes on with ${columnsText({ columns })}`;
}
