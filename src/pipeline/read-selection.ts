import { ErserverError } from "../errors/erserver-error.ts";
import { readTables } from "../postgres/catalog.ts";
import type { ControlSession } from "../postgres/connect.ts";
import { readRowFilters } from "../postgres/row-filters.ts";
import {
  type CaptureKind,
  requireTables,
  type Selection,
  type SelectionRules,
  selectTables,
} from "../postgres/selection.ts";
import type { SourceFacts } from "../postgres/server-facts.ts";

/** What the rules select of the source as it is now. Throws when a table of it cannot be replicated, or there is none. */
export async function readSelection(
  source: ControlSession,
  { version }: Pick<SourceFacts, "version">,
  rules: SelectionRules,
  capture: CaptureKind,
): Promise<Selection> {
  const tables = await readTables(source, version);
  const selection = selectTables(tables, rules, version, capture);
  const blocking = selection.problems.filter((problem) => problem.blocks);
  const [first] = blocking;
  if (first !== undefined) {
    throw new ErserverError(first.code, blocking.map((problem) => problem.message).join("; "), {
      subject: first.table,
      remedy: [...new Set(blocking.map((problem) => problem.remedy))].join(" "),
    });
  }
  requireTables(selection);
  return readRowFilters(source, selection);
}
