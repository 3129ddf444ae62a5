import { type ErserverError, toErserverError } from "../../errors/erserver-error.ts";
import { redactText } from "../../observability/redact.ts";
import type { Paint } from "./paint.ts";

/** What went wrong, as `ErserverError` and as kept on a target. */
export interface Failure {
  readonly code: string;
  readonly message: string;
  readonly detail?: string | undefined;
  readonly remedy: string;
}

export interface TargetFailure {
  readonly target: string;
  readonly error: ErserverError;
}

/** A failure of some of the targets that a command was about; the others have ended well. */
export class TargetFailures extends Error {
  override readonly name = "TargetFailures";
  readonly failures: readonly TargetFailure[];
  /** Whether the command has shown them when they happened. */
  readonly shown: boolean;

  constructor(failures: readonly TargetFailure[], { shown = false } = {}) {
    super(failures.map(({ target, error }) => `${target}: ${error.message}`).join("\n"));
    this.failures = failures;
    this.shown = shown;
  }
}

/** Exit code and text of anything that a command has thrown. */
export function describeThrown(thrown: unknown, paint: Paint): { exit: number; text: string } {
  if (!(thrown instanceof TargetFailures)) {
    const error = toErserverError(thrown);
    const stack = error.code === "ERS-901" && thrown instanceof Error ? thrown.stack : undefined;
    return {
      exit: error.entry.exit,
      text: renderFailure(error, paint) + (stack === undefined ? "" : `${redactText(stack)}\n`),
    };
  }
  const text = thrown.shown ? "" : renderTargetFailures(thrown.failures, paint);
  return { exit: thrown.failures[0]?.error.entry.exit ?? 1, text };
}

export function renderTargetFailures(failures: readonly TargetFailure[], paint: Paint): string {
  return groupAlike(failures)
    .map(({ targets, error }) =>
      renderFailure({ ...failureOf(error), message: `${targets.join(", ")}: ${error.message}` }, paint),
    )
    .join("");
}

/** The source's failures are those of every target: said once. */
function groupAlike(failures: readonly TargetFailure[]): { targets: string[]; error: ErserverError }[] {
  const groups = new Map<string, { targets: string[]; error: ErserverError }>();
  for (const { target, error } of failures) {
    const key = JSON.stringify(failureOf(error));
    const group = groups.get(key) ?? { targets: [], error };
    group.targets.push(target);
    groups.set(key, group);
  }
  return [...groups.values()];
}

/** The fields that a machine reads. */
function failureOf({ code, message, detail, remedy }: Failure): Failure {
  return { code, message, ...(detail === undefined ? {} : { detail }), remedy };
}

/**
 * ```
 * ERS-201  postgres@ny.example:5432/booktown: no answer
 *   → Start the server, or correct the address.
 * ```
 */
export function renderFailure({ code, message, detail, remedy }: Failure, paint: Paint): string {
  const lines = [
    `${paint.bad(code)}  ${indent(message, 2)}`,
    ...(detail === undefined ? [] : [`  ${paint.faint(indent(detail, 2))}`]),
    `  → ${indent(remedy, 4)}`,
  ];
  return redactText(lines.map((line) => `${line}\n`).join(""));
}

function indent(text: string, width: number): string {
  return text.replaceAll(/\n(?=[^\n])/g, `\n${" ".repeat(width)}`);
}
