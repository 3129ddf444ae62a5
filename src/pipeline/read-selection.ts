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
  type TableProblem,
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
  throwProblems(selection.problems.filter((problem) => problem.blocks));
  requireTables(selection);
  return readRowFilters(source, selection);
}

/** Throws the first, with what all say. */
export function throwProblems(problems: readonly TableProblem[]): void {
  const [first] = problems;
  if (first === undefined) return;
  throw new ErserverError(first.code, problems.map((problem) => problem.message).join("; "), {
    subject: first.table,
    remedy: [...new Set(problems.map((problem) => problem.remedy))].join(" "),
  });
}
