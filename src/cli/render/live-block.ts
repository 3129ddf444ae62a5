import type { Terminal } from "../terminal.ts";
import { clip } from "./paint.ts";

/** Moves to the first column of the line `count` above and clears from there to the end of the screen. */
const up = (count: number): string => `\r${count > 0 ? `\u001b[${count}A` : ""}\u001b[J`;

/** Lines at the bottom of a terminal that are drawn again and again; what is printed meanwhile scrolls above them. */
export class LiveBlock {
  readonly #terminal: Terminal;
  #lines: readonly string[] = [];

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
  }

  /** Shows these lines instead of the former. Lines are cut to the width: a wrapped one could not be found again. */
  update(lines: readonly string[]): void {
    const before = this.#lines.length;
    this.#lines = this.#terminal.live ? lines.map((line) => clip(line, this.#terminal.columns - 1)) : [];
    if (before > 0 || this.#lines.length > 0) this.#terminal.write(up(before) + this.#text());
  }

  /** Prints whole lines, for good. */
  print(text: string): void {
    this.#terminal.write(this.#lines.length > 0 ? up(this.#lines.length) + text + this.#text() : text);
  }

  /** As `print`, on standard error; the block gives way for it. */
  printError(text: string): void {
    if (this.#lines.length > 0) this.#terminal.write(up(this.#lines.length));
    this.#terminal.writeError(text);
    if (this.#lines.length > 0) this.#terminal.write(this.#text());
  }

  #text(): string {
    return this.#lines.map((line) => `${line}\n`).join("");
  }
}
