export type LogLevel = "debug" | "info" | "warn" | "error";

/** Values beside the message: names, counts, positions; never row values. `err` holds an error. */
export type LogFields = Readonly<Record<string, unknown>>;

export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  /** A logger that adds `fields` to every line; a pipeline's is `child({ pipeline: "london" })`. */
  child(fields: LogFields): Logger;
}
