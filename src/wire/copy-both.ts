import type { ServerError } from "../errors/server-error.ts";
import { COMMAND_COMPLETE, COPY_BOTH_RESPONSE, COPY_DATA, COPY_DONE } from "./backend.ts";
import type { Channel, Replies } from "./channel.ts";
import { type Deferred, deferred } from "./deferred.ts";
import type { FrameReader } from "./frames.ts";
import { COPY_DATA as SEND_COPY_DATA, COPY_DONE_FRAME } from "./frontend.ts";
import { queryFrame } from "./simple-query.ts";
import { FrameWriter } from "./writer.ts";

/**
 * Receives the payload of one CopyData: `bytes[start, end)`, which may be kept. It is called only after the code that
 * awaits `copyBoth` has gone on. Throwing destroys the connection.
 */
export type OnCopyData = (bytes: Buffer, start: number, end: number) => void;

/**
 * Both directions of `START_REPLICATION`.
 * https://www.postgresql.org/docs/current/protocol-replication.html
 */
export class CopyBoth {
  readonly #channel: Channel;
  readonly #replies: CopyBothReplies;
  readonly #writer = new FrameWriter();

  private constructor(channel: Channel, replies: CopyBothReplies) {
    this.#channel = channel;
    this.#replies = replies;
  }

  /** Resolves when the server streams; rejects with its ServerError or the connection's error. */
  static async start(channel: Channel, sql: string, onData: OnCopyData): Promise<CopyBoth> {
    const replies = new CopyBothReplies(channel, onData);
    if (channel.begin(replies)) channel.write(queryFrame(sql));
    await replies.started.promise;
    return new CopyBoth(channel, replies);
  }

  /**
   * Resolves when the stream has ended without an error: after `end`, or because the server shuts down. Rejects
   * with the server's error, or the connection's.
   */
  get finished(): Promise<void> {
    return this.#replies.finished.promise;
  }

  /** Sends one CopyData, at once. Does nothing when the stream is over. */
  send(payload: Buffer): void {
    if (this.#replies.over) return;
    const writer = this.#writer;
    writer.begin(SEND_COPY_DATA);
    writer.bytes(payload);
    writer.end();
    this.#channel.write(writer.take());
  }

  /**
   * Stops reading from the socket. What has already been read is still delivered: up to a few socket chunks of
   * 64 KiB. While paused, the end of the connection is not noticed.
   */
  pause(): void {
    this.#channel.pause();
  }

  resume(): void {
    this.#channel.resume();
  }

  /**
   * Ends the stream and resolves when the server is ready for the next query. Data that still arrives is dropped: the
   * server may send the rest of a large transaction first, so the caller bounds the wait and destroys the connection.
   */
  async end(): Promise<void> {
    this.#replies.leave();
    await this.finished;
  }
}

class CopyBothReplies implements Replies {
  readonly started: Deferred<void> = deferred<void>();
  readonly finished: Deferred<void> = deferred<void>();
  readonly #channel: Channel;
  readonly #onData: OnCopyData;
  /** What came together with the server's consent, before the caller has its CopyBoth. */
  #early: { readonly bytes: Buffer; readonly start: number; readonly end: number }[] | undefined;
  #left = false;
  #completed = false;
  #error: ServerError | undefined;
  over = false;

  constructor(channel: Channel, onData: OnCopyData) {
    this.#channel = channel;
    this.#onData = onData;
  }

  /** Answers, or asks for, the end of the stream. */
  leave(): void {
    if (this.#left || this.over) return;
    this.#left = true;
    this.over = true;
    this.#channel.write(COPY_DONE_FRAME);
    this.#channel.resume();
  }

  message(frame: FrameReader): void {
    switch (frame.type) {
      case COPY_DATA:
        if (this.#left) return;
        if (this.#early === undefined) this.#onData(frame.bytes, frame.start, frame.end);
        else this.#early.push({ bytes: frame.bytes, start: frame.start, end: frame.end });
        return;
      case COPY_BOTH_RESPONSE:
        this.#early = [];
        this.started.resolve();
        setImmediate(() => this.#deliverEarly());
        return;
      case COPY_DONE:
        this.leave();
        return;
      case COMMAND_COMPLETE:
        // A walsender that shuts down sends this, without CopyDone before or ReadyForQuery behind it, and closes.
        this.#completed = true;
        this.over = true;
        return;
      default:
        throw frame.violation("does not answer START_REPLICATION");
    }
  }

  error(error: ServerError): void {
    this.#error ??= error;
    this.over = true;
  }

  ready(): void {
    this.#deliverEarly();
    if (this.#error === undefined) {
      this.finished.resolve();
    } else {
      this.started.reject(this.#error);
      this.finished.reject(this.#error);
    }
  }

  fail(reason: Error): void {
    this.over = true;
    this.#early = undefined;
    this.started.reject(reason);
    if (this.#completed && this.#error === undefined) this.finished.resolve();
    else this.finished.reject(this.#error ?? reason);
  }
  #deliverEarly(): void {
    const early = this.#early;
    this.#early = undefined;
    try {
      for (const { bytes, start, end } of early ?? []) if (!this.#left) this.#onData(bytes, start, end);
    } catch (error) {
      this.#channel.close(error instanceof Error ? error : new Error(String(error)));
    }
  }
}
