import type { PipelineStatus } from "../../pipeline/pipeline.ts";
import type { Terminal } from "../terminal.ts";
import { LiveBlock } from "./live-block.ts";
import { clock, copyText, liveLine } from "./pipeline-lines.ts";

const REDRAW_MS = 200;
/** How often a copy is reported where lines cannot be drawn again. */
const COPY_LINE_MS = 5_000;

interface PipelineBlockOptions {
  /** Undefined draws nothing. */
  readonly redrawMs?: number | undefined;
  /** Called with a line, instead of printing it on standard error. */
  readonly onCopying?: (status: PipelineStatus, line: string) => void;
}

/** A line for each pipeline that is drawn again and again; where that cannot be, a line now and then while it copies. */
export class PipelineBlock extends LiveBlock implements Disposable {
  readonly nameWidth: number;
  readonly #terminal: Terminal;
  readonly #onCopying: (status: PipelineStatus, line: string) => void;
  readonly #shown = new Map<string, { status: PipelineStatus; copyStartMs: number; saidMs: number }>();
  readonly #timer: NodeJS.Timeout | undefined;

  constructor(terminal: Terminal, names: readonly string[], options: PipelineBlockOptions = {}) {
    super(terminal);
    const { redrawMs, onCopying } = { redrawMs: REDRAW_MS, ...options };
    this.#terminal = terminal;
    this.#onCopying = onCopying ?? ((_status, line) => terminal.writeError(`${line}\n`));
    this.nameWidth = Math.max(...names.map((name) => name.length));
    if (terminal.live && redrawMs !== undefined) this.#timer = setInterval(() => this.#redraw(), redrawMs);
  }

  onStatus(status: PipelineStatus): void {
    const now = performance.now();
    const shown = this.#shown.get(status.name) ?? { status, copyStartMs: now, saidMs: now };
    if (status.state === "copying" && shown.status.state !== "copying") shown.copyStartMs = now;
    shown.status = status;
    this.#shown.set(status.name, shown);
    if (this.#timer !== undefined || status.copy === undefined || status.state !== "copying") return;
    if (now - shown.saidMs < COPY_LINE_MS) return;
    shown.saidMs = now;
    const text = copyText(status.copy, now - shown.copyStartMs);
    this.#onCopying(status, `${clock(new Date())}  ${status.name}: ${text}`);
  }

  /** The pipeline has ended. */
  forget(name: string): void {
    this.#shown.delete(name);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.update([]);
  }

  #redraw(): void {
    const now = performance.now();
    this.update(
      [...this.#shown.values()].map(({ status, copyStartMs }) =>
        liveLine(status, this.nameWidth, this.#terminal.paint, now - copyStartMs),
      ),
    );
  }
}
