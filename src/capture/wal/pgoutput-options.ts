import { quoteIdent } from "../../quote/ident.ts";

export interface StreamContents {
  readonly slot: string;
  readonly publications: readonly string[];
  /** Ask for binary column values (14 and up). */
  readonly binary: boolean;
}

/** Options of the output plugin, names and values. https://www.postgresql.org/docs/current/protocol-logical-replication.html */
export function pgoutputOptions({ publications, binary }: StreamContents): [string, string][] {
  return [
    ["proto_version", "1"],
    ["publication_names", publications.map(quoteIdent).join(",")],
    ...(binary ? ([["binary", "true"]] as [string, string][]) : []),
  ];
}
