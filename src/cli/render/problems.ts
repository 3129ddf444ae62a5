import type { TableProblem } from "../../postgres/selection.ts";
import type { Paint } from "./paint.ts";

/** What an operator should know about tables, each with its remedy; problems that several targets share once. */
export function renderProblems(problems: readonly TableProblem[], paint: Paint): string {
  const lines = problems.map(
    ({ code, message, remedy }) => `${paint.warning(code)}  ${message}\n  → ${remedy}\n`,
  );
  return [...new Set(lines)].join("");
}
