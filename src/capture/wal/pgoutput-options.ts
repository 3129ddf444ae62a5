import { quoteIdent } from "../../quote/ident.ts";

export interface StreamContents {
  readonly slot: string;
  readonly publications: readonly string[];
  /** Ask for binary column values (14 and up). */
  readonly binary: boolean;
  /** Ask for large transactions while they are in progress (14 and up). */
  readonly streaming: boolean;
}

/** Options of the output plugin, names and values. https://www.postgresql.org/docs/current/protocol-logical-replication.html */
export function pgoutputOptions({ publications, binary, streaming }: StreamContents): [string, string][] {
  return [
    ["proto_version", streaming ? "2" : "1"],
    ...(streaming ? ([["streaming", "on"]] as [string, string][]) : []),
    ["publication_names", publications.map(quoteIdent).join(",")],
    ...(binary ? ([["binary", "true"]] as [string, string][]) : []),
  ];
}
