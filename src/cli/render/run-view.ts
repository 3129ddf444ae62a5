import type { PipelineStatus } from "../../pipeline/pipeline.ts";
import type { PipelineState } from "../../store/pipeline-store.ts";
import type { Terminal } from "../terminal.ts";
import { PipelineBlock } from "./pipeline-block.ts";
import { endLine, remedyLine, stateLine, statusEvent } from "./pipeline-lines.ts";

const REDRAW_MS = 500;

interface Shown {
  readonly state: PipelineState;
  /** Code of the error that was shown with the state. */
  readonly code: string | undefined;
}

/**
 * What `erserver run` shows: a line for each change of a pipeline's state, and below them the block of all pipelines. With `json`,
 * events instead.
 */
export class RunView implements Disposable {
  readonly #terminal: Terminal;
  readonly #json: boolean;
  readonly #block: PipelineBlock;
  readonly #shown = new Map<string, Shown>();

  constructor(terminal: Terminal, names: readonly string[], json: boolean) {
    this.#terminal = terminal;
    this.#json = json;
    this.#block = new PipelineBlock(terminal, names, {
      redrawMs: json ? undefined : REDRAW_MS,
      onCopying: (status, line) => this.#line(json ? JSON.stringify(statusEvent(status, "copy")) : line),
    });
  }

  onStatus(status: PipelineStatus): void {
    const { name, state, error } = status;
    const before = this.#shown.get(name);
    this.#shown.set(name, { state, code: error?.code });
    if (before === undefined || before.state !== state || before.code !== error?.code) {
      // The state may go on for another reason.
      const at = before?.state === state ? new Date() : status.since;
      this.#line(
        this.#json
          ? JSON.stringify(statusEvent(status, "state"))
          : [stateLine(status, at, this.#block.nameWidth, this.#terminal.paint), remedyLine(status)]
              .filter((line) => line !== undefined)
              .join("\n"),
      );
    }
    this.#block.onStatus(status);
  }

  /** A pipeline has ended without an error. */
  ended(status: PipelineStatus): void {
    this.#shown.delete(status.name);
    this.#block.forget(status.name);
    if (!this.#json) this.#line(endLine(status));
  }

  /** For the log and for errors. */
  printError(text: string): void {
    this.#block.printError(text);
  }

  [Symbol.dispose](): void {
    this.#block[Symbol.dispose]();
  }

  #line(text: string): void {
    this.#block.print(`${text}\n`);
  }
}
