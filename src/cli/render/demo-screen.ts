import type { Fact, Screen } from "../../demo/screen.ts";
import type { Terminal } from "../terminal.ts";
import { LiveBlock } from "./live-block.ts";
import { padEnd, wrap } from "./paint.ts";
import { renderTable } from "./table.ts";

const INDENT = "   ";
/** Longer lines are hard to read. */
const MAX_WIDTH = 100;
const SERVER_WIDTH = "new-york".length + 2;

/** The demo on a terminal: numbered steps, a line for each server, and lines that are drawn again while something goes on. */
export class DemoScreen implements Screen {
  readonly #terminal: Terminal;
  readonly #block: LiveBlock;
  #step = 0;

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
    this.#block = new LiveBlock(terminal);
  }

  title(text: string): void {
    this.#block.print(`${this.#terminal.paint.strong(text)}\n`);
  }

  step(title: string): void {
    this.#step++;
    const { paint } = this.#terminal;
    this.now([]);
    this.#block.print(`\n${paint.strong(`${this.#step}  ${title}`)}\n`);
  }

  fact(fact: Fact): void {
    this.now([]);
    this.#block.print(`${this.#line(fact)}\n`);
  }

  now(facts: readonly Fact[]): void {
    this.#block.update(facts.map((fact) => this.#line(fact)));
  }

  note(text: string, mood?: "good" | "warning"): void {
    const { paint } = this.#terminal;
    this.now([]);
    // A warning belongs to its step; anything else stands by itself, with lines that may be meant to be copied.
    const lines =
      mood === "warning" ? wrap(text, this.#width - INDENT.length).replaceAll(/^/gm, INDENT) : `\n${text}`;
    const painted = mood === undefined ? lines : lines.replaceAll(/.+/g, paint[mood]);
    this.#block.print(`${painted}\n`);
  }

  table([head = [], ...rows]: readonly (readonly string[])[]): void {
    const { paint } = this.#terminal;
    const columns = head.map((text, index) =>
      index === 0 ? { head: text } : ({ head: text, align: "right" } as const),
    );
    const painted = rows.map((row) => row.map((cell) => (cell === "equal" ? paint.good(cell) : cell)));
    this.now([]);
    this.#block.print(renderTable(columns, painted, paint).replace(/^/gm, INDENT).trimEnd() + "\n");
  }

  get #width(): number {
    return Math.min(this.#terminal.columns, MAX_WIDTH);
  }

  #line({ server, text, mood }: Fact): string {
    const { paint } = this.#terminal;
    return `${INDENT}${padEnd(server, SERVER_WIDTH)}${mood === undefined ? text : paint[mood](text)}`;
  }
}
