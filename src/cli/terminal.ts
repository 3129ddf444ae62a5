import { ask } from "./ask.ts";
import { onInterrupt } from "./interrupt.ts";
import { PLAIN, COLORED, type Paint } from "./render/paint.ts";

/** Where a command writes, and who may ask it to end. */
export interface Terminal {
  /** Results: standard output. */
  write(text: string): void;
  /** Errors and the log: standard error. */
  writeError(text: string): void;
  /** Whether standard output is a terminal on which lines can be drawn again. */
  readonly live: boolean;
  /** Width in characters; without limit when it is not a terminal. */
  readonly columns: number;
  /** For `write`. */
  readonly paint: Paint;
  /** For `writeError`. */
  readonly errorPaint: Paint;
  /** Aborted when the command is asked to end. */
  readonly interrupted: AbortSignal;
  /** Asks whoever sits at standard input, and does not show what is typed; undefined when nobody does. */
  askSecret(question: string): Promise<string | undefined>;
  /** The same, with the answer shown. */
  ask(question: string): Promise<string | undefined>;
}

/** Standard output, standard error and signals of this process. `NO_COLOR` (https://no-color.org) is honoured. */
export function processTerminal(): Terminal {
  const { stdout, stderr, env } = process;
  const colored = (stream: NodeJS.WriteStream): boolean =>
    stream.isTTY && (env["NO_COLOR"] ?? "") === "" && env["TERM"] !== "dumb";
  return {
    write: (text) => void stdout.write(text),
    writeError: (text) => void stderr.write(text),
    live: stdout.isTTY && env["TERM"] !== "dumb",
    get columns() {
      return stdout.isTTY ? stdout.columns : Number.POSITIVE_INFINITY;
    },
    paint: colored(stdout) ? COLORED : PLAIN,
    errorPaint: colored(stderr) ? COLORED : PLAIN,
    interrupted: onInterrupt(),
    askSecret: (question) => ask(question, "hidden"),
    ask: (question) => ask(question, "shown"),
  };
}
