import type { Problem } from "../../pipeline/limits.ts";
import type { Paint } from "./paint.ts";

/** What an operator should know, each with its remedy; problems that several targets share once. */
export function renderProblems(problems: readonly Problem[], paint: Paint): string {
  const lines = problems.map(
    ({ code, message, remedy }) => `${paint.warning(code)}  ${message}\n  → ${remedy}\n`,
  );
  return [...new Set(lines)].join("");
}
