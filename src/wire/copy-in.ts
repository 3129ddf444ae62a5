import type { ServerError } from "../errors/server-error.ts";
import { COMMAND_COMPLETE, COPY_IN_RESPONSE, readTagCount } from "./backend.ts";
import type { Channel, Replies } from "./channel.ts";
import { type Deferred, deferred } from "./deferred.ts";
import type { FrameReader } from "./frames.ts";
import { COPY_DATA, COPY_DONE_FRAME, COPY_FAIL } from "./frontend.ts";
import { queryFrame } from "./simple-query.ts";
import { FrameWriter } from "./writer.ts";

/** Payloads given to `write` are sent together once this much has gathered. */
const SEND_AT = 64 * 1024;

/**
 * `COPY … FROM STDIN`. When the server reports an error in the middle, the next call rejects with it; the
 * connection can then be used again. `done` or `fail` must be called unless a call has rejected.
 */
export class CopyIn {
  readonly #channel: Channel;
  readonly #replies: CopyInReplies;
  readonly #writer = new FrameWriter();

  private constructor(channel: Channel, replies: CopyInReplies) {
    this.#channel = channel;
    this.#replies = replies;
  }

  /** Resolves when the server waits for data; rejects with its ServerError or the connection's error. */
  static async start(channel: Channel, sql: string): Promise<CopyIn> {
    const replies = new CopyInReplies();
    if (channel.begin(replies)) channel.write(queryFrame(sql));
    await replies.started.promise;
    return new CopyIn(channel, replies);
  }

  /** Sends whole CopyData frames as they are, such as a run of `copyOut`; waits when the socket has enough. */
  async writeFrames(raw: Buffer): Promise<void> {
    this.#replies.throwIfFailed();
    this.#send();
    this.#channel.write(raw);
    await this.#channel.drained();
  }

  /** Sends one CopyData with this payload, which is copied; waits when the socket has enough. */
  async write(payload: Buffer): Promise<void> {
    this.#replies.throwIfFailed();
    const writer = this.#writer;
    writer.begin(COPY_DATA);
    writer.bytes(payload);
    writer.end();
    if (writer.buffered < SEND_AT) return;
    this.#send();
    await this.#channel.drained();
  }

  /** Ends the copy; resolves with the number of rows that the server counted. */
  async done(): Promise<number> {
    this.#replies.throwIfFailed();
    this.#send();
    this.#channel.write(COPY_DONE_FRAME);
    this.#channel.spoken(this.#replies);
    return this.#replies.finished.promise;
  }

  /** Calls the copy off: the server undoes it and answers an error with this message, which is swallowed. */
  async fail(message: string): Promise<void> {
    const writer = new FrameWriter();
    writer.begin(COPY_FAIL);
    writer.cstring(message);
    writer.end();
    if (!this.#replies.failed) {
      this.#channel.write(writer.take());
      this.#channel.spoken(this.#replies);
    }
    await this.#replies.over.promise;
  }

  #send(): void {
    this.#channel.write(this.#writer.take());
  }
}

class CopyInReplies implements Replies {
  readonly started: Deferred<void> = deferred<void>();
  readonly finished: Deferred<number> = deferred<number>();
  /** Resolves, whatever the outcome, when the server is ready for the next query; rejects when the connection is gone. */
  readonly over: Deferred<void> = deferred<void>();
  #error: Error | undefined;
  #rows = 0;

  get failed(): boolean {
    return this.#error !== undefined;
  }

  throwIfFailed(): void {
    if (this.#error !== undefined) throw this.#error;
  }

  message(frame: FrameReader): void {
    switch (frame.type) {
      case COPY_IN_RESPONSE:
        this.started.resolve();
        return;
      case COMMAND_COMPLETE:
        this.#rows = Math.max(readTagCount(frame), 0);
        return;
      default:
        throw frame.violation("does not answer COPY FROM STDIN");
    }
  }

  error(error: ServerError): void {
    this.#error ??= error;
  }

  ready(): void {
    this.over.resolve();
    if (this.#error === undefined) this.finished.resolve(this.#rows);
    else this.#settle(this.#error);
  }

  fail(reason: Error): void {
    this.#error ??= reason;
    this.over.reject(reason);
    this.#settle(this.#error);
  }

  #settle(error: Error): void {
    this.started.reject(error);
    this.finished.reject(error);
  }
}
