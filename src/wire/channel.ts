import type { Duplex } from "node:stream";

import { ErserverError } from "../errors/erserver-error.ts";
import { ServerError, type ServerErrorFields } from "../errors/server-error.ts";
import {
  COPY_DATA,
  ERROR_RESPONSE,
  NOTICE_RESPONSE,
  NOTIFICATION_RESPONSE,
  PARAMETER_STATUS,
  READY_FOR_QUERY,
  readErrorFields,
  readParameterStatus,
  readTransactionStatus,
  type TransactionStatus,
} from "./backend.ts";
import { type Deferred, deferred } from "./deferred.ts";
import { FrameReader } from "./frames.ts";

/** What an operation does with the messages that answer it. Anything thrown destroys the connection. */
export interface Replies {
  /** Any message but those below and the asynchronous ones, in `frame`. */
  message(frame: FrameReader): void;
  /** ErrorResponse. ReadyForQuery follows. */
  error(error: ServerError): void;
  /** ReadyForQuery: the operation is over. */
  ready(): void;
  /** The connection is gone, or the operation could not start; nothing else follows. */
  fail(reason: Error): void;
  /** All frames of what the socket gave at once have been handed over. */
  chunkEnd?(): void;
}

/**
 * The socket, and who is to get the next answer. Operations are answered in the order in which they began, and
 * one may begin before the last is answered; only one at a time may be in the middle of sending (`speaker`).
 */
export class Channel {
  readonly parameters = new Map<string, string>();
  transactionStatus: TransactionStatus = "I";
  /** performance.now() of the last bytes. */
  lastReceivedAt: number = performance.now();
  onNotice: ((fields: ServerErrorFields) => void) | undefined;
  /** Why the connection is gone; undefined while it lives. */
  reason: Error | undefined;

  readonly #stream: Duplex;
  readonly #subject: string | undefined;
  readonly #frames = new FrameReader();
  readonly #pending: Replies[] = [];
  readonly #closed: Deferred<Error> = deferred<Error>();
  #speaker: Replies | undefined;
  #drain: Deferred<void> | undefined;

  constructor(stream: Duplex, subject: string | undefined) {
    this.#stream = stream;
    this.#subject = subject;
    stream.on("data", (chunk: Buffer) => this.#receive(chunk));
    stream.on("drain", () => this.#drained());
    stream.on("error", (error: Error) =>
      this.close(this.lost(`the connection broke: ${error.message}`, error)),
    );
    stream.on("end", () => this.close(this.lost("the server closed the connection")));
    stream.on("close", () => this.close(this.lost("the connection was closed")));
    stream.resume();
  }

  get closed(): Promise<Error> {
    return this.#closed.promise;
  }

  /**
   * Puts an operation last in the line for answers and lets it send until `spoken` or until it is answered.
   * When it cannot begin, its `fail` is called and false returned.
   */
  begin(replies: Replies): boolean {
    if (this.reason === undefined && this.#speaker !== undefined) {
      replies.fail(
        new ErserverError("ERS-901", "an operation began in the middle of another on the same connection", {
          remedy: "Please report this.",
        }),
      );
      return false;
    }
    if (this.reason !== undefined) {
      replies.fail(this.reason);
      return false;
    }
    this.#pending.push(replies);
    this.#speaker = replies;
    return true;
  }

  /** The operation has sent everything: the next may begin. */
  spoken(replies: Replies): void {
    if (this.#speaker === replies) this.#speaker = undefined;
  }

  /** Queues bytes, which are not to be changed afterwards. Does nothing when the connection is gone. */
  write(bytes: Buffer): void {
    if (this.reason === undefined && bytes.length > 0) this.#stream.write(bytes);
  }

  /** Resolves when the socket is below its high-water mark; rejects when the connection is gone. */
  async drained(): Promise<void> {
    if (this.reason !== undefined) throw this.reason;
    if (!this.#stream.writableNeedDrain) return;
    this.#drain ??= deferred<void>();
    await this.#drain.promise;
  }

  /** True while an operation waits for an answer. */
  get busy(): boolean {
    return this.#pending.length > 0;
  }

  get paused(): boolean {
    return this.#stream.isPaused();
  }

  /** Stops reading; what has already been read from the socket is still handed over. */
  pause(): void {
    this.#stream.pause();
  }

  resume(): void {
    this.#stream.resume();
  }

  close(reason: Error): void {
    if (this.reason !== undefined) return;
    this.reason = reason;
    this.#speaker = undefined;
    this.#stream.destroy();
    this.#drain?.reject(reason);
    for (const replies of this.#pending.splice(0)) replies.fail(reason);
    this.#closed.resolve(reason);
  }

  lost(message: string, cause?: unknown): ErserverError {
    return new ErserverError("ERS-204", message, {
      ...(this.#subject === undefined ? {} : { subject: this.#subject }),
      remedy: "Nothing to do when the server or the network comes back: erserver connects again by itself.",
      cause,
    });
  }

  #receive(chunk: Buffer): void {
    this.lastReceivedAt = performance.now();
    const frames = this.#frames;
    frames.push(chunk);
    try {
      while (this.reason === undefined && frames.next()) this.#dispatch(frames);
      if (this.reason === undefined) this.#pending[0]?.chunkEnd?.();
    } catch (error) {
      this.close(error instanceof Error ? error : new Error(String(error)));
    }
  }

  #dispatch(frame: FrameReader): void {
    const current = this.#pending[0];
    if (frame.type === COPY_DATA && current !== undefined) {
      current.message(frame);
      return;
    }
    switch (frame.type) {
      case NOTICE_RESPONSE:
        this.onNotice?.(readErrorFields(frame));
        return;
      case PARAMETER_STATUS:
        this.parameters.set(...readParameterStatus(frame));
        return;
      case NOTIFICATION_RESPONSE:
        return;
      case ERROR_RESPONSE: {
        const error = new ServerError(readErrorFields(frame));
        // After FATAL and PANIC the server closes the connection, and no ReadyForQuery comes.
        if (error.fields.severity !== "ERROR")
          this.close(this.lost(`the server ended the session: ${error.message}`, error));
        else if (current === undefined) this.close(error);
        else current.error(error);
        return;
      }
      case READY_FOR_QUERY:
        if (current === undefined) throw frame.violation("came without a question");
        this.transactionStatus = readTransactionStatus(frame);
        this.#pending.shift();
        this.spoken(current);
        current.ready();
        return;
      default:
        if (current === undefined) throw frame.violation("came without a question");
        current.message(frame);
    }
  }

  #drained(): void {
    this.#drain?.resolve();
    this.#drain = undefined;
  }
}
