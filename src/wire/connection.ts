import type { Duplex } from "node:stream";

import type { ServerErrorFields } from "../errors/server-error.ts";
import type { TransactionStatus } from "./backend.ts";
import { Batch } from "./batch.ts";
import { Channel } from "./channel.ts";
import { CopyBoth, type OnCopyData } from "./copy-both.ts";
import { CopyIn } from "./copy-in.ts";
import { copyOutRequest, FrameRuns, selectRequest } from "./frame-runs.ts";
import { TERMINATE_FRAME } from "./frontend.ts";
import { queryFrame, SimpleQuery, type SimpleResult } from "./simple-query.ts";

/** How long `end` waits for the server to close. */
const END_TIMEOUT_MS = 2000;

/**
 * A connection for bulk work, on a socket that is authenticated, idle, and read by nobody else.
 *
 * Operations are answered in the order in which they began. One may begin while another waits for its answer, but
 * not while another is still being sent (a flushed Batch before `send`, a CopyIn before `done`, a CopyBoth). When the
 * connection breaks all of them reject; those that nobody awaits yet are no unhandled rejections.
 */
export class WireConnection {
  /** The server's process of this session; 0 when the stream came without it. */
  readonly backendPid: number;
  readonly #channel: Channel;
  readonly #stream: Duplex;

  /** Takes the stream over. `subject` says whose connection it is in errors: `role@host:port/database`. */
  constructor(stream: Duplex, subject?: string, backendPid = 0) {
    this.backendPid = backendPid;
    this.#stream = stream;
    this.#channel = new Channel(stream, subject);
  }

  /** Resolves once, with the reason, when the connection is gone for any reason; never rejects. */
  get closed(): Promise<Error> {
    return this.#channel.closed;
  }

  get alive(): boolean {
    return this.#channel.reason === undefined;
  }

  /** performance.now() of the last bytes that came. */
  get lastReceivedAt(): number {
    return this.#channel.lastReceivedAt;
  }

  /** True while the server owes an answer. */
  get busy(): boolean {
    return this.#channel.busy;
  }

  /** True while the server owes an answer and we read: silence then says something. */
  get listening(): boolean {
    return this.#channel.busy && !this.#channel.paused;
  }

  get transactionStatus(): TransactionStatus {
    return this.#channel.transactionStatus;
  }

  /** Parameters that the server has reported since the take-over. */
  get parameters(): ReadonlyMap<string, string> {
    return this.#channel.parameters;
  }

  get onNotice(): ((fields: ServerErrorFields) => void) | undefined {
    return this.#channel.onNotice;
  }

  set onNotice(listener: ((fields: ServerErrorFields) => void) | undefined) {
    this.#channel.onNotice = listener;
  }

  /**
   * Runs one or more statements by the simple protocol; one result per statement, values as text.
   * Rejects with the ServerError, or the connection's error.
   */
  query(sql: string): Promise<readonly SimpleResult[]> {
    const replies = new SimpleQuery();
    const frame = queryFrame(sql);
    if (this.#channel.begin(replies)) {
      this.#channel.write(frame);
      this.#channel.spoken(replies);
    }
    return replies.result;
  }

  /** Statements of the extended protocol with one Sync. Nothing is sent until its `flush` or `send`. */
  batch(): Batch {
    return new Batch(this.#channel);
  }

  /** Starts `COPY … TO STDOUT`; errors appear when it is iterated. */
  copyOut(sql: string): FrameRuns {
    return new FrameRuns(this.#channel, copyOutRequest(sql));
  }

  /** Starts a query for its rows, many or few; errors appear when it is iterated. All values come in one format. */
  select(queries: readonly string[], format: "text" | "binary"): FrameRuns {
    return new FrameRuns(this.#channel, selectRequest(queries, format));
  }

  /** Starts `COPY … FROM STDIN`. */
  async copyIn(sql: string): Promise<CopyIn> {
    return CopyIn.start(this.#channel, sql);
  }

  /** Starts `START_REPLICATION`; `onData` gets every payload. */
  async copyBoth(sql: string, onData: OnCopyData): Promise<CopyBoth> {
    return CopyBoth.start(this.#channel, sql, onData);
  }

  /** Says goodbye and waits, not for long, until the connection is closed. */
  async end(): Promise<void> {
    const channel = this.#channel;
    if (channel.reason !== undefined) return;
    channel.write(TERMINATE_FRAME);
    channel.resume();
    this.#stream.end();
    const timer = setTimeout(() => this.destroy(), END_TIMEOUT_MS);
    await channel.closed;
    clearTimeout(timer);
  }

  /** Drops the connection at once. Everything pending rejects with the reason. */
  destroy(reason?: Error): void {
    this.#channel.close(reason ?? this.#channel.lost("the connection was closed by this side"));
  }
}
