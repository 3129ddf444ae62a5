import type { PipelineStatus } from "../../pipeline/pipeline.ts";
import type { Terminal } from "../terminal.ts";
import { LiveBlock } from "./live-block.ts";
import { clock, copyText, liveLine } from "./pipeline-lines.ts";

const REDRAW_MS = 200;
const LINE_MS = 5_000;

/** What goes on while a command brings targets up to date: a line for each that is drawn again, elsewhere a line now and then while copying. */
export class SyncView implements Disposable {
  readonly #terminal: Terminal;
  readonly #block: LiveBlock;
  readonly #nameWidth: number;
  readonly #statuses = new Map<string, { status: PipelineStatus; copyStartMs: number; saidMs: number }>();
  readonly #timer: NodeJS.Timeout | undefined;

  constructor(terminal: Terminal, names: readonly string[]) {
    this.#terminal = terminal;
    this.#block = new LiveBlock(terminal);
    this.#nameWidth = Math.max(...names.map((name) => name.length));
    if (terminal.live) this.#timer = setInterval(() => this.#redraw(), REDRAW_MS);
  }

  onStatus(status: PipelineStatus): void {
    const now = performance.now();
    const shown = this.#statuses.get(status.name) ?? { status, copyStartMs: now, saidMs: now };
    if (status.state === "copying" && shown.status.state !== "copying") shown.copyStartMs = now;
    shown.status = status;
    this.#statuses.set(status.name, shown);
    if (this.#timer !== undefined || status.copy === undefined || status.state !== "copying") return;
    if (now - shown.saidMs < LINE_MS) return;
    shown.saidMs = now;
    const text = copyText(status.copy, now - shown.copyStartMs);
    this.#terminal.writeError(`${clock(new Date())}  ${status.name}: ${text}\n`);
  }

  /** Prints whole lines, for good. */
  print(text: string): void {
    this.#block.print(text);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#block.update([]);
  }

  #redraw(): void {
    const now = performance.now();
    this.#block.update(
      [...this.#statuses.values()].map(({ status, copyStartMs }) =>
        liveLine(status, this.#nameWidth, this.#terminal.paint, now - copyStartMs),
      ),
    );
  }
}
