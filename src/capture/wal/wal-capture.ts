import { type Lsn, maxLsn, parseLsn, ZERO_LSN } from "../../change/lsn.ts";
import { ErserverError } from "../../errors/erserver-error.ts";
import { PgoutputDecoder } from "../../pgoutput/decoder.ts";
import type { ControlSession } from "../../postgres/connect.ts";
import type { WireConnection } from "../../wire/connection.ts";
import { FAR_BEHIND } from "./bites.ts";
import { BulkReader } from "./bulk-reader.ts";
import { captureFailure } from "./capture-errors.ts";
import { StreamReader, type StreamReaderOptions } from "./stream-reader.ts";

export type Gear = "stream" | "bulk";

export interface WalCaptureOptions extends Omit<
  StreamReaderOptions,
  "connection" | "positions" | "decoder" | "streaming"
> {
  readonly connect: {
    /** A replication connection. */
    readonly stream: () => Promise<WireConnection>;
    /** An ordinary one. */
    readonly bulk: () => Promise<WireConnection>;
  };
  /** For questions to the source. */
  readonly control: ControlSession;
  /** Of the source, as server_version_num. */
  readonly version: number;
  /** `auto`: bulk while far behind. */
  readonly gear: Gear | "auto";
  /** A stream that begins here or later may bring large transactions while they are in progress; undefined for none. */
  readonly streamingFromLsn: () => Lsn | undefined;
  readonly onGear: (gear: Gear) => void;
  /** The source does not let us use the bulk gear, for this reason. */
  readonly onRefused: (reason: Error) => void;
}

/** The first version that can copy a slot: pg_copy_logical_replication_slot. */
const SLOT_COPY = 120_000;

/** How often it is asked how far a stream is behind. */
const MEASURE_MS = 5_000;

/**
 * Reads a source's changes from the pipeline's slot into a sink, in commit order: by a stream when near its end, in bulk
 * when far behind. Both give the same transactions, and either begins where the other ended.
 */
export class WalCapture implements AsyncDisposable {
  readonly #options: WalCaptureOptions;
  readonly #decoder: PgoutputDecoder;
  readonly #failed: Promise<never>;
  #rejectFailed!: (error: unknown) => void;
  #stream: StreamReader | undefined;
  #bulk: { readonly reader: BulkReader; readonly done: Promise<void> } | undefined;
  #timer: NodeJS.Timeout | undefined;
  #measuring = false;
  #bulkRefused = false;
  /** End of the WAL when the bulk gear was left as of no more use: it is not tried again before that is reached. */
  #leftLsn: Lsn = ZERO_LSN;
  #standing = false;
  #ended = false;
  #appliedLsn: Lsn;
  #flushedLsn: Lsn = ZERO_LSN;

  private constructor(options: WalCaptureOptions) {
    this.#options = options;
    this.#appliedLsn = options.startLsn;
    this.#decoder = new PgoutputDecoder(options.sink);
    this.#failed = new Promise<never>((_resolve, reject) => {
      this.#rejectFailed = reject;
    });
    this.#failed.catch(() => {});
  }

  /** Resolves when the source gives changes. Throws ERS-5xx for what is wrong with the slot or the publications. */
  static async start(options: WalCaptureOptions): Promise<WalCapture> {
    const capture = new WalCapture(options);
    const { startLsn } = options;
    if (!(await capture.#isFarBehind(startLsn)) || !(await capture.#startBulk(startLsn)))
      await capture.#startStream(startLsn);
    capture.#timer = setInterval(() => void capture.#measure(), MEASURE_MS);
    return capture;
  }

  /** Rejects when no more changes come, for whatever reason. */
  get failed(): Promise<never> {
    return this.#failed;
  }

  get gear(): Gear {
    return this.#bulk === undefined ? "stream" : "bulk";
  }

  /** What the target has applied, and made durable. Told to the source soon, or at once with `now`. */
  acknowledge(appliedLsn: Lsn, flushedLsn: Lsn, now = false): void {
    this.#appliedLsn = appliedLsn;
    this.#flushedLsn = flushedLsn;
    this.#stream?.acknowledge(appliedLsn, flushedLsn, now);
  }

  async settle(appliedLsn: Lsn, flushedLsn: Lsn): Promise<void> {
    this.acknowledge(appliedLsn, flushedLsn, true);
  }

  /** Whether the target stands still for as long as somebody likes: a bite would hold a snapshot of the source all the while. */
  set standing(standing: boolean) {
    this.#standing = standing;
    if (standing) this.#bulk?.reader.leave();
  }

  /** Positions are held by the sink. */
  holdAt(): undefined {
    return undefined;
  }

  /** The position says it all. */
  snapshotAt(): undefined {
    return undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended = true;
    clearInterval(this.#timer);
    const bulk = this.#bulk;
    bulk?.reader.leave();
    await bulk?.reader.close();
    await bulk?.done;
    await this.#stream?.[Symbol.asyncDispose]();
  }

  async #startStream(fromLsn: Lsn): Promise<void> {
    const options = this.#options;
    const appliedLsn = this.#appliedLsn;
    const positions = { receivedLsn: maxLsn(fromLsn, appliedLsn), appliedLsn, flushedLsn: this.#flushedLsn };
    const connection = await options.connect.stream();
    const stream = await StreamReader.start({
      ...options,
      connection,
      startLsn: fromLsn,
      positions,
      decoder: this.#decoder,
      streaming: this.#mayStream(fromLsn),
    });
    this.#stream = stream;
    stream.failed.catch((error: unknown) => {
      if (this.#stream === stream) this.#rejectFailed(error);
    });
    if (this.#ended) await stream[Symbol.asyncDispose]();
    options.onGear("stream");
  }

  /** False when the source does not let us. */
  async #startBulk(fromLsn: Lsn): Promise<boolean> {
    let reader: BulkReader;
    try {
      reader = await BulkReader.open({
        ...this.#options,
        connect: this.#options.connect.bulk,
        startLsn: fromLsn,
        decoder: this.#decoder,
        streaming: false,
        always: this.#options.gear === "bulk",
        durableLsn: () => this.#flushedLsn,
      });
    } catch (error) {
      this.#refuse(error);
      return false;
    }
    if (this.#ended) {
      await reader.close();
      return true;
    }
    const done = this.#readBulk(reader, fromLsn).catch((error: unknown) => this.#rejectFailed(error));
    this.#bulk = { reader, done };
    this.#options.onGear("bulk");
    return true;
  }

  async #readBulk(reader: BulkReader, fromLsn: Lsn): Promise<void> {
    let nextLsn: Lsn = ZERO_LSN;
    try {
      nextLsn = await reader.read();
    } catch (error) {
      if (this.#ended) return;
      if (!reader.alive) throw captureFailure(error, this.#options);
      this.#refuse(error);
    } finally {
      this.#bulk = undefined;
      if (!this.#standing) this.#leftLsn = reader.endLsn;
      await reader.close();
    }
    if (this.#ended) return;
    await this.#startStream(maxLsn(this.#cut(fromLsn), nextLsn));
  }

  #refuse(reason: unknown): void {
    this.#bulkRefused = true;
    this.#options.onRefused(reason instanceof Error ? reason : new Error(String(reason)));
  }

  /** Ends what is delivered behind the last whole transaction, and tells where that is. */
  #cut(fromLsn: Lsn): Lsn {
    const { sink } = this.#options;
    if (!sink.cut()) throw notCut();
    this.#decoder.reset();
    return maxLsn(sink.completeLsn, fromLsn);
  }

  async #measure(): Promise<void> {
    const stream = this.#stream;
    if (this.#measuring || stream === undefined || this.#bulk !== undefined) return;
    this.#measuring = true;
    try {
      const { sink } = this.#options;
      const hereLsn = maxLsn(sink.completeLsn, this.#appliedLsn);
      const bulk = await this.#isFarBehind(hereLsn);
      const otherwise = bulk || (this.#mayStream(hereLsn) && !stream.streaming);
      if (!otherwise || this.#ended || this.#standing || !sink.mayCut) return;
      this.#stream = undefined;
      await stream[Symbol.asyncDispose]();
      const fromLsn = this.#cut(hereLsn);
      if (!bulk || !(await this.#startBulk(fromLsn))) await this.#startStream(fromLsn);
    } catch (error) {
      this.#rejectFailed(error);
    } finally {
      this.#measuring = false;
    }
  }

  #mayStream(lsn: Lsn): boolean {
    const fromLsn = this.#options.streamingFromLsn();
    return fromLsn !== undefined && lsn >= fromLsn;
  }

  async #isFarBehind(lsn: Lsn): Promise<boolean> {
    const { gear, version, control } = this.#options;
    if (gear === "stream" || version < SLOT_COPY || this.#bulkRefused || lsn < this.#leftLsn) return false;
    if (gear === "bulk") return true;
    const [row] = await control.query("select pg_catalog.pg_current_wal_flush_lsn() as lsn");
    return Number(parseLsn(row?.["lsn"] ?? "") - lsn) > FAR_BEHIND;
  }
}

/** The part of a transaction that the target has can only be taken back with its session. */
function notCut(): ErserverError {
  return new ErserverError(
    "ERS-204",
    "the way of reading was to be changed in the middle of a transaction that is being written",
    {
      remedy: "Nothing to do: the pipeline is opened anew by itself.",
    },
  );
}
