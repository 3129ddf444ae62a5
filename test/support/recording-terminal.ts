import { PLAIN } from "../../src/cli/render/paint.ts";
import type { Terminal } from "../../src/cli/terminal.ts";

export interface RecordingTerminal extends Terminal {
  /** What was written to standard output so far. */
  readonly output: string;
  /** What was written to standard error so far. */
  readonly errors: string;
  /** The lines that somebody in front of it would see: escape sequences for "up" and "clear below" obeyed. */
  readonly screen: readonly string[];
}

/** A terminal that keeps what is written to it. */
export function recordingTerminal({
  live = false,
  columns = 80,
  answer = "",
  interrupted = new AbortController().signal,
} = {}): RecordingTerminal {
  let output = "";
  let errors = "";
  let all = "";
  return {
    live,
    columns,
    paint: PLAIN,
    errorPaint: PLAIN,
    interrupted,
    ask: async () => answer,
    askSecret: async () => answer,
    write: (text) => {
      output += text;
      all += text;
    },
    writeError: (text) => {
      errors += text;
      all += text;
    },
    get output() {
      return output;
    },
    get errors() {
      return errors;
    },
    get screen() {
      return play(all);
    },
  };
}

function play(text: string): string[] {
  const lines = [""];
  let row = 0;
  for (const part of text.split(/(\r(?:\u001b\[\d+A)?\u001b\[J|\n)/)) {
    if (part === "\n") lines[++row] ??= "";
    else if (part.startsWith("\r")) {
      row -= Number(/\[(\d+)A/.exec(part)?.[1] ?? 0);
      lines.length = row + 1;
      lines[row] = "";
    } else if (part !== "") lines[row] += part;
  }
  return lines;
}
