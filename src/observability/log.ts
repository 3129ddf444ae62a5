import { destination, type DestinationStream, pino, stdTimeFunctions } from "pino";
import { humanFormat } from "./human-format.ts";
import { redactFields, redactText } from "./redact.ts";

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

export interface LoggerOptions {
  readonly level: LogLevel;
  /** `json`: one object a line, for machines. `human`: for a terminal. Default: `human` when standard error is one. */
  readonly format?: "json" | "human";
  /** Takes whole lines. Default: standard error. */
  readonly write?: (line: string) => void;
}

/** Lines are written synchronously: those of a process that is about to die are the ones that matter. */
export function createLogger({ level, format, write }: LoggerOptions): Logger {
  const output: DestinationStream = write === undefined ? destination({ fd: 2, sync: true }) : { write };
  const human = (format ?? (process.stderr.isTTY ? "human" : "json")) === "human";
  const color = write === undefined && process.env.NO_COLOR === undefined;
  const lines: DestinationStream = human
    ? { write: (line) => output.write(humanFormat(line, color)) }
    : output;
  const root = pino(
    {
      level,
      base: null,
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      // Errors are described by redactFields, which leaves row values out.
      serializers: { err: (value: unknown) => value },
      errorKey: "err",
      messageKey: "msg",
    },
    lines,
  );
  return new PinoLogger(root);
}

type Sink = ReturnType<typeof pino<never>>;

class PinoLogger implements Logger {
  readonly #sink: Sink;

  constructor(sink: Sink) {
    this.#sink = sink;
  }

  debug(message: string, fields?: LogFields): void {
    this.#write("debug", message, fields);
  }

  info(message: string, fields?: LogFields): void {
    this.#write("info", message, fields);
  }

  warn(message: string, fields?: LogFields): void {
    this.#write("warn", message, fields);
  }

  error(message: string, fields?: LogFields): void {
    this.#write("error", message, fields);
  }

  child(fields: LogFields): Logger {
    return new PinoLogger(this.#sink.child(redactFields(fields)));
  }

  #write(level: LogLevel, message: string, fields: LogFields = {}): void {
    if (this.#sink.isLevelEnabled(level)) this.#sink[level](redactFields(fields), redactText(message));
  }
}
