import { formatLsn, type Lsn, maxLsn } from "../../change/lsn.ts";
import type { ChangeSink } from "../../change/sink.ts";
import { ErserverError } from "../../errors/erserver-error.ts";
import type { PgoutputDecoder } from "../../pgoutput/decoder.ts";
import { quoteIdent } from "../../quote/ident.ts";
import { quoteLiteral } from "../../quote/literal.ts";
import type { CopyBoth } from "../../wire/copy-both.ts";
import type { WireConnection } from "../../wire/connection.ts";
import { captureFailure, heedNotices } from "./capture-errors.ts";
import { judgeSilence } from "./liveness.ts";
import { restMs } from "./pace.ts";
import { pgoutputOptions, type StreamContents } from "./pgoutput-options.ts";
import { encodeStatusUpdate, type Positions } from "./status-update.ts";

export interface StreamReaderOptions extends StreamContents {
  /** A replication connection; it belongs to the reader from here on. */
  readonly connection: WireConnection;
  /** `role@host:port/database`, for errors. */
  readonly subject: string;
  /** Transactions that end at or before it are not wanted. */
  readonly startLsn: Lsn;
  readonly positions: Positions;
  readonly sink: ChangeSink;
  readonly decoder: PgoutputDecoder;
  /** Longest silence of the source, in milliseconds. */
  readonly timeoutMs: number;
}

const XLOG_DATA = 0x77;
const PRIMARY_KEEPALIVE = 0x6b;
/** Type byte, start of the data, end of WAL, send time. */
const XLOG_DATA_HEADER = 25;

/** How often positions are sent at the least: a tenth of the timeout, at most every second's lag in pg_stat_replication. */
const STATUS_INTERVAL_MS = 1_000;
/** For how long messages are counted before it is decided whether to rest: the few of one commit say nothing. */
const COUNTED_MS = 4;

/**
 * The stream gear: START_REPLICATION from the pipeline's slot into a sink. Status updates have their own timer
 * and never wait for the consumer, so the source keeps the connection while the target is slow.
 * https://www.postgresql.org/docs/current/protocol-logical-replication.html
 */
export class StreamReader implements AsyncDisposable {
  readonly #options: StreamReaderOptions;
  readonly #decoder: PgoutputDecoder;
  readonly #failed: Promise<never>;
  #rejectFailed!: (error: unknown) => void;
  #stream: CopyBoth | undefined;
  #timer: NodeJS.Timeout | undefined;
  #positions: Positions;
  /** The sink has enough. */
  #paused = false;
  /** Reading rests: see pace.ts. */
  #resting = false;
  #restMs = 0;
  /** Messages since `#countedMs`, and whether they are about to be looked at. */
  #messages = 0;
  #countedMs = performance.now();
  #counting = false;
  #lastHeardMs = performance.now();
  #lastAskedMs = 0;
  #lastSentMs = 0;

  private constructor(options: StreamReaderOptions) {
    this.#options = options;
    this.#decoder = options.decoder;
    this.#positions = options.positions;
    this.#failed = new Promise<never>((_resolve, reject) => {
      this.#rejectFailed = reject;
    });
    this.#failed.catch(() => {});
  }

  /** Resolves when the source streams. Throws ERS-5xx for what is wrong with the slot or the publications. */
  static async start(options: StreamReaderOptions): Promise<StreamReader> {
    const reader = new StreamReader(options);
    const parameters = pgoutputOptions(options).map(([name, value]) => `${name} ${quoteLiteral(value)}`);
    const sql = `START_REPLICATION SLOT ${quoteIdent(options.slot)} LOGICAL ${formatLsn(options.startLsn)} (${parameters.join(", ")})`;
    heedNotices(options);
    try {
      const stream = await options.connection.copyBoth(sql, (bytes, start, end) =>
        reader.#receive(bytes, start, end),
      );
      reader.#stream = stream;
      stream.finished.then(
        () => reader.#rejectFailed(sourceEnded(options.subject)),
        (error: unknown) => reader.#rejectFailed(captureFailure(error, options)),
      );
    } catch (error) {
      options.connection.destroy();
      throw captureFailure(error, options);
    }
    reader.#timer = setInterval(() => reader.#tick(), Math.min(STATUS_INTERVAL_MS, options.timeoutMs / 10));
    if (options.sink.full) reader.#pause();
    return reader;
  }

  /** Rejects when the stream ends, for whatever reason. */
  get failed(): Promise<never> {
    return this.#failed;
  }

  /** It brings large transactions while they are in progress. */
  get streaming(): boolean {
    return this.#options.streaming;
  }

  /** What the target has applied, and made durable. Sent at the next tick, or at once with `now`. */
  acknowledge(appliedLsn: Lsn, flushedLsn: Lsn, now = false): void {
    const { receivedLsn } = this.#positions;
    if (appliedLsn === this.#positions.appliedLsn && flushedLsn === this.#positions.flushedLsn) return;
    this.#positions = { receivedLsn: maxLsn(receivedLsn, appliedLsn), appliedLsn, flushedLsn };
    if (now) this.#sendStatus(false);
  }

  /** Tells the last positions and ends the stream; waits at most a second for the source's goodbye. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    const { connection } = this.#options;
    if (this.#stream !== undefined && connection.alive) {
      this.#sendStatus(false);
      this.#resume();
      const impatient = setTimeout(() => connection.destroy(), 1_000);
      await this.#stream.end().catch(() => {});
      clearTimeout(impatient);
    }
    await connection.end();
  }

  #receive(bytes: Buffer, start: number, end: number): void {
    this.#lastHeardMs = performance.now();
    this.#messages++;
    if (!this.#counting) {
      this.#counting = true;
      // When all that the socket has at the moment is read.
      setImmediate(() => this.#count());
    }
    const type = bytes[start];
    if (type === XLOG_DATA && end - start > XLOG_DATA_HEADER) {
      this.#decoder.decode(bytes, start + XLOG_DATA_HEADER, end);
      if (this.#options.sink.full && !this.#paused) this.#pause();
    } else if (type === PRIMARY_KEEPALIVE && end - start === 18) {
      this.#keepalive(bytes.readBigUInt64BE(start + 1) as Lsn, bytes[start + 17] === 1);
    } else {
      throw new ErserverError(
        "ERS-602",
        `the source sent a replication message of type ${type} and ${end - start} bytes`,
        {
          remedy: "Check that the source is a PostgreSQL server of a supported version.",
        },
      );
    }
  }

  #keepalive(walEnd: Lsn, replyRequested: boolean): void {
    if (!this.#decoder.inTransaction) {
      this.#positions = { ...this.#positions, receivedLsn: maxLsn(this.#positions.receivedLsn, walEnd) };
      this.#options.sink.idle(walEnd);
    }
    if (replyRequested) this.#sendStatus(false);
  }

  #tick(): void {
    const nowMs = performance.now();
    const action = judgeSilence({
      nowMs,
      lastHeardMs: this.#lastHeardMs,
      lastAskedMs: this.#lastAskedMs,
      paused: this.#paused,
      timeoutMs: this.#options.timeoutMs,
    });
    if (action === "dead") {
      this.#options.connection.destroy(
        new ErserverError(
          "ERS-204",
          `the source has been silent for ${Math.round((nowMs - this.#lastHeardMs) / 1000)} s`,
          {
            subject: this.#options.subject,
            remedy:
              "Nothing to do when the network comes back: it reconnects by itself. `timeout` in the configuration sets how long silence is borne.",
          },
        ),
      );
      return;
    }
    if (action === "ask") this.#lastAskedMs = nowMs;
    if (action === "ask" || nowMs - this.#lastSentMs >= STATUS_INTERVAL_MS - 1)
      this.#sendStatus(action === "ask");
  }

  #sendStatus(replyRequested: boolean): void {
    this.#lastSentMs = performance.now();
    this.#stream?.send(encodeStatusUpdate(this.#positions, Date.now(), replyRequested));
  }

  #pause(): void {
    if (this.#stream === undefined) return;
    this.#paused = true;
    this.#stream.pause();
    void this.#options.sink.whenRoom().then(() => this.#resume());
  }

  #resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#lastHeardMs = performance.now();
    if (!this.#resting) this.#stream?.resume();
  }

  #count(): void {
    this.#counting = false;
    const nowMs = performance.now();
    const elapsedMs = nowMs - this.#countedMs;
    if (elapsedMs < COUNTED_MS || this.#stream === undefined) return;
    this.#restMs = restMs(this.#messages, elapsedMs, this.#restMs);
    this.#messages = 0;
    this.#countedMs = nowMs;
    if (this.#restMs > 0 && !this.#resting) this.#rest(this.#stream, this.#restMs);
  }

  #rest(stream: CopyBoth, ms: number): void {
    this.#resting = true;
    stream.pause();
    setTimeout(() => {
      this.#resting = false;
      if (!this.#paused) stream.resume();
    }, ms);
  }
}

function sourceEnded(subject: string): ErserverError {
  return new ErserverError("ERS-204", "the source ended the stream: it is shutting down", {
    subject,
    remedy: "Nothing to do: it reconnects by itself when the server is back.",
  });
}
