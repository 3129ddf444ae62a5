import { createInterface } from "node:readline/promises";
import { Writable } from "node:stream";

/** One line from standard input; undefined when that is no terminal. The question goes to standard error, as results go to the output. */
export async function ask(question: string, echo: "shown" | "hidden"): Promise<string | undefined> {
  const { stdin, stderr } = process;
  if (!stdin.isTTY) return undefined;
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  const lines = createInterface({
    input: stdin,
    output: echo === "shown" ? stderr : nowhere,
    terminal: true,
  });
  // In raw mode Ctrl-C is a key.
  lines.on("SIGINT", () => {
    lines.close();
    process.kill(process.pid, "SIGINT");
  });
  const closed = new Promise<undefined>((resolve) => lines.once("close", () => resolve(undefined)));
  try {
    if (echo === "hidden") stderr.write(question);
    return await Promise.race([lines.question(echo === "shown" ? question : ""), closed]);
  } finally {
    lines.close();
    if (echo === "hidden") stderr.write("\n");
  }
}
