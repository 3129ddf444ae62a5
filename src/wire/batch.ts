import type { ServerError } from "../errors/server-error.ts";
import {
  BIND_COMPLETE,
  CLOSE_COMPLETE,
  COMMAND_COMPLETE,
  COPY_IN_RESPONSE,
  DATA_ROW,
  EMPTY_QUERY_RESPONSE,
  PARSE_COMPLETE,
  readTag,
  readTagCount,
  readTextRow,
  type TextRow,
  type TransactionStatus,
} from "./backend.ts";
import type { Channel, Replies } from "./channel.ts";
import { type Deferred, deferred } from "./deferred.ts";
import type { FrameReader } from "./frames.ts";
import { BIND, CLOSE, COPY_DATA, COPY_DONE_FRAME, EXECUTE_FRAME, PARSE, SYNC_FRAME } from "./frontend.ts";
import { FrameWriter } from "./writer.ts";

/** Format codes of a parameter. */
export const TEXT_FORMAT = 0;
export const BINARY_FORMAT = 1;

const STATEMENT = 0x53;

/** Bytes that a held batch gathers before it waits. */
const MOST_HELD = 16 * 1024 * 1024;

export interface BatchResult {
  /** One entry per Execute that completed: the rows affected; 0 for a command whose tag has no count. */
  readonly affected: readonly number[];
  /** Rows by the index of the Execute that returned them; no entry when it returned none. */
  readonly rows: ReadonlyMap<number, readonly TextRow[]>;
  /** Tags without a count (`BEGIN`, `TRUNCATE TABLE`, …) by the index of their Execute. A COMMIT that rolled back says `ROLLBACK`. */
  readonly tags: ReadonlyMap<number, string>;
  /** The error of the statement that failed; the server has skipped everything behind it. */
  readonly error: ServerError | undefined;
  /**
   * Index of the Execute that failed, -1 when none did. A Parse or Bind that fails counts for the Execute behind
   * it, and a failure of the implicit commit for one behind the last.
   */
  readonly failedAt: number;
  readonly status: TransactionStatus;
}

/**
 * Statements of the extended protocol that are sent together and end with one Sync. Outside of a transaction
 * block the server runs them as one transaction.
 *
 * Bytes may be given to the socket while the batch is still being written (`flush`), and the answers are read at
 * the same time. From the first `flush` on the connection serves this batch alone until `send`.
 * `COPY … FROM STDIN` may be executed in a batch: its CopyData and CopyDone frames follow the Execute at once.
 */
export class Batch {
  /** For encoders that write Parse, Bind, Execute or CopyData frames themselves. */
  readonly writer = new FrameWriter();
  readonly #channel: Channel;
  readonly #replies: BatchReplies;
  #begun = false;
  #refused = false;
  /** Resolves when the batch may be sent; undefined when it always could. */
  #held: Deferred<void> | undefined;
  #heldRuns: Buffer[] = [];
  #heldBytes = 0;
  #abandoned = false;

  constructor(channel: Channel) {
    this.#channel = channel;
    this.#replies = new BatchReplies(channel);
  }

  /** Prepares a statement; `""` is the unnamed one. Type oid 0 leaves the choice of the type to the server. */
  parse(name: string, sql: string, parameterTypes: readonly number[]): void {
    const { writer } = this;
    writer.begin(PARSE);
    writer.cstring(name);
    writer.cstring(sql);
    writer.int16(parameterTypes.length);
    for (const oid of parameterTypes) writer.int32(oid);
    writer.end();
  }

  /** Bind and Execute with values at hand: strings as text, Buffers as binary. */
  bindExecute(statement: string, parameters: readonly (string | Buffer | null)[]): void {
    this.startBind(statement, parameters.length);
    for (const parameter of parameters) this.format(Buffer.isBuffer(parameter) ? BINARY_FORMAT : TEXT_FORMAT);
    this.startValues(parameters.length);
    for (const parameter of parameters) {
      if (parameter === null) {
        this.nullValue();
      } else {
        const bytes = typeof parameter === "string" ? Buffer.from(parameter, "utf8") : parameter;
        this.value(bytes, 0, bytes.length);
      }
    }
    this.endBind();
    this.execute();
  }

  /**
   * Opens a Bind of the unnamed portal. Then, in this order: `format` once per parameter, `startValues`, `value` or
   * `nullValue` once per parameter, `endBind`. `formats` may also be 0 (all text) or 1 (one format for all).
   */
  startBind(statement: string, formats: number): void {
    const { writer } = this;
    writer.begin(BIND);
    writer.int8(0);
    writer.cstring(statement);
    writer.int16(formats);
  }

  format(code: typeof TEXT_FORMAT | typeof BINARY_FORMAT): void {
    this.writer.int16(code);
  }

  startValues(parameters: number): void {
    this.writer.int16(parameters);
  }

  /** One parameter: `length` bytes of `bytes` from `start`, as they are; they must not change afterwards. */
  value(bytes: Buffer, start: number, length: number): void {
    this.writer.int32(length);
    this.writer.lasting(bytes, start, start + length);
  }

  /** One parameter: everything that `parts` holds and nobody has taken. */
  valueOf(parts: FrameWriter): void {
    this.writer.int32(parts.buffered);
    for (const run of parts.takeRuns()) this.writer.lasting(run, 0, run.length);
  }

  nullValue(): void {
    this.writer.int32(-1);
  }

  /** Closes the Bind; results are asked for as text. */
  endBind(): void {
    this.writer.int16(0);
    this.writer.end();
  }

  /** Executes what was bound last. */
  execute(): void {
    this.writer.bytes(EXECUTE_FRAME);
  }

  /** Opens a CopyData frame, behind the Execute of a `COPY … FROM STDIN`; its payload goes to `writer`. */
  beginCopyData(): void {
    this.writer.begin(COPY_DATA);
  }

  endCopyData(): void {
    this.writer.end();
  }

  copyDone(): void {
    this.writer.bytes(COPY_DONE_FRAME);
  }

  /** Forgets a prepared statement; one that does not exist is no error. */
  closeStatement(name: string): void {
    const { writer } = this;
    writer.begin(CLOSE);
    writer.int8(STATEMENT);
    writer.cstring(name);
    writer.end();
  }

  /** Bytes not yet given to the socket. */
  get buffered(): number {
    return this.writer.buffered;
  }

  /** True once a statement of this batch has failed: what is written from now on will be skipped. */
  get failed(): boolean {
    return this.#abandoned || this.#replies.failed;
  }

  /** Nothing goes to the socket before `release`: it stays in memory, up to `MOST_HELD`. Only before the first `flush`. */
  hold(): this {
    this.#held = deferred<void>();
    return this;
  }

  get held(): boolean {
    return this.#held !== undefined;
  }

  release(): void {
    this.#held?.resolve();
    this.#held = undefined;
  }

  /** A held batch is not to be sent at all: it counts as failed. */
  abandon(): void {
    this.#abandoned = true;
    this.release();
  }

  /** Waits until a held batch is released. */
  async released(): Promise<void> {
    await this.#held?.promise;
  }

  /**
   * Gives the buffered bytes to the socket, and waits when the socket has enough. Rejects with the connection's error. While the
   * batch is held, others may run.
   */
  async flush(): Promise<void> {
    if (this.#abandoned) return;
    if (this.#held !== undefined) {
      this.#heldBytes += this.writer.buffered;
      this.#heldRuns.push(...this.writer.takeRuns());
      if (this.#heldBytes < MOST_HELD) return new Promise((resolve) => setImmediate(resolve));
      await this.#held.promise;
    } else if (this.#hand()) await this.#channel.drained();
    else await this.#replies.result;
  }

  /** Sends the rest and Sync. Resolves also when a statement failed; rejects when the connection is gone. */
  send(): Promise<BatchResult> {
    if (this.#abandoned) return Promise.reject(new Error("the batch was abandoned"));
    this.writer.bytes(SYNC_FRAME);
    if (this.#hand()) this.#channel.spoken(this.#replies);
    return this.#replies.result;
  }

  /** False when the batch could not begin: its result has been rejected. */
  #hand(): boolean {
    const runs = this.writer.takeRuns();
    if (!this.#begun) {
      this.#begun = true;
      this.#refused = !this.#channel.begin(this.#replies);
    }
    if (this.#refused) return false;
    for (const run of this.#heldRuns.splice(0)) this.#channel.write(run);
    for (const run of runs) this.#channel.write(run);
    return true;
  }
}

class BatchReplies implements Replies {
  readonly #channel: Channel;
  readonly #done: Deferred<BatchResult> = deferred<BatchResult>();
  readonly #affected: number[] = [];
  readonly #rows = new Map<number, TextRow[]>();
  readonly #tags = new Map<number, string>();
  #error: ServerError | undefined;

  constructor(channel: Channel) {
    this.#channel = channel;
  }

  get result(): Promise<BatchResult> {
    return this.#done.promise;
  }

  get failed(): boolean {
    return this.#error !== undefined;
  }

  message(frame: FrameReader): void {
    switch (frame.type) {
      case PARSE_COMPLETE:
      case BIND_COMPLETE:
      case CLOSE_COMPLETE:
      case COPY_IN_RESPONSE:
        return;
      case COMMAND_COMPLETE: {
        const count = readTagCount(frame);
        if (count < 0) this.#tags.set(this.#affected.length, readTag(frame));
        this.#affected.push(Math.max(count, 0));
        return;
      }
      case EMPTY_QUERY_RESPONSE:
        this.#affected.push(0);
        return;
      case DATA_ROW: {
        const execute = this.#affected.length;
        const rows = this.#rows.get(execute);
        if (rows === undefined) this.#rows.set(execute, [readTextRow(frame)]);
        else rows.push(readTextRow(frame));
        return;
      }
      default:
        throw frame.violation("does not answer a batch");
    }
  }

  error(error: ServerError): void {
    this.#error ??= error;
  }

  ready(): void {
    this.#done.resolve({
      affected: this.#affected,
      rows: this.#rows,
      tags: this.#tags,
      error: this.#error,
      failedAt: this.#error === undefined ? -1 : this.#affected.length,
      status: this.#channel.transactionStatus,
    });
  }

  fail(reason: Error): void {
    this.#done.reject(reason);
  }
}
