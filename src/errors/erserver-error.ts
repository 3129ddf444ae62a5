import { SQLSTATE } from "./sqlstate.ts";
import { ERROR_CODES, type ErrorCode, type ErrorCodeEntry } from "./codes.ts";

export interface ErserverErrorOptions {
  /** The object that it is about: a table, slot, file position, or `role@host:port/database`. Never a secret or a row value. */
  readonly subject?: string;
  /** What to do, as a sentence or the exact command. */
  readonly remedy: string;
  /** More for the operator's eyes, such as the key of a row: shown and kept on the target, never logged. */
  readonly detail?: string;
  readonly cause?: unknown;
}

/** An error that an operator can act on: a stable code, what it is about, and the remedy. */
export class ErserverError extends Error {
  override readonly name = "ErserverError";
  readonly code: ErrorCode;
  readonly subject: string | undefined;
  readonly remedy: string;
  readonly detail: string | undefined;

  constructor(code: ErrorCode, message: string, options: ErserverErrorOptions) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.subject = options.subject;
    this.remedy = options.remedy;
    this.detail = options.detail;
  }

  get entry(): ErrorCodeEntry {
    return ERROR_CODES[this.code];
  }
}

/** Turns anything thrown into an ErserverError; what nobody foresaw is ERS-901. */
export function toErserverError(error: unknown): ErserverError {
  if (error instanceof ErserverError) return error;
  const message = error instanceof Error ? error.message : String(error);
  const state = error instanceof Error && "code" in error ? error.code : undefined;
  // `erserver drop`, MasterDrop or SlaveDrop may come between any two looks at the schema.
  if (state === SQLSTATE.undefinedTable && /\berserver\./.test(message)) {
    return new ErserverError("ERS-407", `the database holds no state of this pipeline any more: ${message}`, {
      remedy: "If the target is still wanted, start over for it: erserver run; or MasterInit, SlaveInit.",
      cause: error,
    });
  }
  if (state === SQLSTATE.insufficientPrivilege) {
    return new ErserverError("ERS-304", message, {
      remedy: message.includes("schema erserver")
        ? "Use the role that made schema erserver (MasterInit, SlaveInit, erserver init): the schema belongs to it."
        : "Grant it to the role: the README says what it needs on each side.",
      cause: error,
    });
  }
  return new ErserverError("ERS-901", message, {
    remedy: "Please report this with the log; nothing was lost, the position on the target is exact.",
    cause: error,
  });
}
