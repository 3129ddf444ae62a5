import type { PipelineStatus } from "../../pipeline/pipeline.ts";
import type { PipelineState } from "../../store/pipeline-store.ts";
import type { Terminal } from "../terminal.ts";
import { LiveBlock } from "./live-block.ts";
import { clock, copyText, endLine, liveLine, remedyLine, stateLine, statusEvent } from "./pipeline-lines.ts";

const REDRAW_MS = 500;
/** How often a copy is reported where lines cannot be drawn again. */
const COPY_LINE_MS = 5_000;

interface Shown {
  status: PipelineStatus;
  state: PipelineState | undefined;
  /** Code of the error that was shown with the state. */
  code: string | undefined;
  copyStartMs: number;
  copyShownMs: number;
}

/**
 * What `erserver run` shows: a line for each change of a pipeline's state; on a terminal also a block with a line for each
 * pipeline, elsewhere a line now and then while copying. With `json`, events instead.
 */
export class RunView implements Disposable {
  readonly #terminal: Terminal;
  readonly #json: boolean;
  readonly #block: LiveBlock;
  readonly #shown = new Map<string, Shown>();
  readonly #nameWidth: number;
  readonly #timer: NodeJS.Timeout | undefined;

  constructor(terminal: Terminal, names: readonly string[], json: boolean) {
    this.#terminal = terminal;
    this.#json = json;
    this.#block = new LiveBlock(terminal);
    this.#nameWidth = Math.max(...names.map((name) => name.length));
    if (terminal.live && !json) this.#timer = setInterval(() => this.#redraw(), REDRAW_MS);
  }

  onStatus(status: PipelineStatus): void {
    const now = performance.now();
    const shown = this.#shown.get(status.name) ?? {
      status,
      state: undefined,
      code: undefined,
      copyStartMs: now,
      copyShownMs: now,
    };
    this.#shown.set(status.name, shown);
    shown.status = status;
    if (shown.state !== status.state || shown.code !== status.error?.code) {
      if (status.state === "copying") shown.copyStartMs = now;
      // The state may go on for another reason.
      const at = shown.state === status.state ? new Date() : status.since;
      shown.state = status.state;
      shown.code = status.error?.code;
      this.#line(
        this.#json
          ? JSON.stringify(statusEvent(status, "state"))
          : [stateLine(status, at, this.#nameWidth, this.#terminal.paint), remedyLine(status)]
              .filter((line) => line !== undefined)
              .join("\n"),
      );
    }
    const { copy } = status;
    if (status.state !== "copying" || copy === undefined || this.#timer !== undefined) return;
    if (now - shown.copyShownMs < COPY_LINE_MS) return;
    shown.copyShownMs = now;
    const text = `${clock(new Date())}  ${status.name}: ${copyText(copy, now - shown.copyStartMs)}`;
    this.#line(this.#json ? JSON.stringify(statusEvent(status, "copy")) : text);
  }

  /** A pipeline has ended without an error. */
  ended(status: PipelineStatus): void {
    this.#shown.delete(status.name);
    if (!this.#json) this.#line(endLine(status));
  }

  /** For the log and for errors. */
  printError(text: string): void {
    this.#block.printError(text);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#block.update([]);
  }

  #line(text: string): void {
    this.#block.print(`${text}\n`);
  }

  #redraw(): void {
    const now = performance.now();
    this.#block.update(
      [...this.#shown.values()].map(({ status, copyStartMs }) =>
        liveLine(status, this.#nameWidth, this.#terminal.paint, now - copyStartMs),
      ),
    );
  }
}
