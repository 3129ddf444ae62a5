import { randomBytes } from "node:crypto";
import { formatLsn, type Lsn, parseLsn, ZERO_LSN } from "../../change/lsn.ts";
import type { ChangeSink } from "../../change/sink.ts";
import { ErserverError } from "../../errors/erserver-error.ts";
import type { PgoutputDecoder } from "../../pgoutput/decoder.ts";
import { quoteLiteral } from "../../quote/literal.ts";
import { parseSlotName } from "../../quote/slot-name.ts";
import type { WireConnection } from "../../wire/connection.ts";
import { copyPayloads } from "../../wire/copy-out.ts";
import { type Bite, nextBite, type SlotPosition } from "./bites.ts";
import { pgoutputOptions, type StreamContents } from "./pgoutput-options.ts";

export interface BulkReaderOptions extends StreamContents {
  /** An ordinary connection, which belongs to the reader from here on. */
  readonly connection: WireConnection;
  /** Transactions that commit before it are not wanted. */
  readonly startLsn: Lsn;
  readonly sink: ChangeSink;
  readonly decoder: PgoutputDecoder;
  /** Go on with small bites when there is little left; for tests. */
  readonly always: boolean;
  /** Durable on the target: the pipeline's slot may move here. Zero for unknown. */
  readonly durableLsn: () => Lsn;
}

/** The pipeline's slot is moved when so much WAL is durable on the target: the source decodes it once more for that. */
const ADVANCE_BYTES = 256n * 1024n * 1024n;

/** How often a reader that always goes on looks for more. */
const POLL_MS = 20;

/** Signature, flags, and the length of the header's extension. */
const COPY_HEADER_LENGTH = 19;
const COPY_SIGNATURE = 0x50;

/**
 * Reads a backlog with the SQL function for it instead of a WAL sender, which makes one send() for each row. The pipeline's own slot
 * must not move before the target has the changes, so a temporary copy of it reads ahead; it goes with the connection.
 * https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-REPLICATION
 */
export class BulkReader {
  readonly #options: BulkReaderOptions;
  readonly #name: string;
  #left = false;
  #wake: (() => void) | undefined;
  #endLsn: Lsn = ZERO_LSN;
  #advancedLsn: Lsn;

  private constructor(options: BulkReaderOptions, name: string) {
    this.#options = options;
    this.#name = name;
    this.#advancedLsn = options.startLsn;
  }

  /** Throws the server's error when it does not let us. */
  static async open(options: BulkReaderOptions): Promise<BulkReader> {
    const { connection, slot, startLsn } = options;
    const name = parseSlotName(`${slot.slice(0, 47)}_bulk_${randomBytes(4).toString("hex")}`);
    const reader = new BulkReader(options, name);
    // A bite takes as long as the target needs for it.
    await connection.query("set statement_timeout = 0; set work_mem = '64MB'");
    await connection.query(
      `select pg_catalog.pg_copy_logical_replication_slot(${quoteLiteral(slot)}, ${quoteLiteral(name)}, true)`,
    );
    const { confirmedLsn } = await reader.#position();
    if (confirmedLsn < startLsn) await reader.#advance(name, startLsn);
    return reader;
  }

  /** End of the source's WAL when it was last looked at. */
  get endLsn(): Lsn {
    return this.#endLsn;
  }

  /**
   * Reads until there is not enough left to be worth it, or `leave`. Returns the position from which to go on, zero when it is
   * the end of the last whole transaction.
   */
  async read(): Promise<Lsn> {
    void this.#options.connection.closed.then(() => this.leave());
    let last: Bite | undefined;
    for (;;) {
      const at = await this.#position();
      const next = this.#next(at, last);
      if (next === undefined) return at.confirmedLsn;
      const upto = (at.confirmedLsn + BigInt(next.wal)) as Lsn;
      if (next.wal === 0) await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      else last = { ...next, data: await this.#bite(upto) };
      if (this.#left) return ZERO_LSN;
      await this.#moveSlot();
    }
  }

  /** Makes `read` end, if need be in the middle of a bite, whose rest is then lost to this reader. */
  leave(): void {
    this.#left = true;
    this.#wake?.();
  }

  #next(at: SlotPosition, last: Bite | undefined): Pick<Bite, "wal" | "size"> | undefined {
    if (!this.#options.always) return nextBite(at, last);
    const wal = Number(at.endLsn - at.confirmedLsn);
    return { wal, size: wal };
  }

  /** Returns how many bytes of changes came. */
  async #bite(upto: Lsn): Promise<number> {
    const { connection, sink, decoder } = this.#options;
    let bytes = 0;
    const row = (data: Buffer, frameStart: number, end: number): void => {
      const start = data[frameStart] === COPY_SIGNATURE ? frameStart + COPY_HEADER_LENGTH : frameStart;
      // One column, or the trailer.
      if (data.readInt16BE(start) !== 1) return;
      bytes += end - start;
      decoder.decode(data, start + 6, end);
    };
    const options = pgoutputOptions(this.#options).flat().map(quoteLiteral).join(", ");
    const rows = connection.copyOut(
      `copy (select data from pg_catalog.pg_logical_slot_get_binary_changes(${quoteLiteral(this.#name)}, ${quoteLiteral(formatLsn(upto))}, null, ${options})) to stdout (format binary)`,
    );
    for await (const run of rows) {
      copyPayloads(run, row);
      if (sink.full) await this.#room();
      if (this.#left) break;
    }
    return bytes;
  }

  /** Waits until the sink has room, or for `leave`. */
  async #room(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      void this.#options.sink.whenRoom().then(resolve);
      if (this.#left) resolve();
    });
  }

  async #position(): Promise<SlotPosition> {
    const [result] = await this.#options.connection.query(
      `select restart_lsn, confirmed_flush_lsn, pg_catalog.pg_current_wal_flush_lsn() from pg_catalog.pg_replication_slots where slot_name = ${quoteLiteral(this.#name)}`,
    );
    const [restartLsn, confirmedLsn, endLsn] = (result?.rows[0] ?? []).map((text) => parseLsn(text ?? ""));
    if (restartLsn === undefined || confirmedLsn === undefined || endLsn === undefined) {
      throw new ErserverError("ERS-502", `temporary replication slot "${this.#name}" is gone`, {
        subject: this.#name,
        remedy: "Nothing to do: the pipeline is opened anew by itself.",
      });
    }
    this.#endLsn = endLsn;
    const { sink, decoder } = this.#options;
    if (!decoder.inTransaction) sink.idle(confirmedLsn);
    return { restartLsn, confirmedLsn, endLsn };
  }

  /** Lets the source remove WAL. */
  async #moveSlot(): Promise<void> {
    const durable = this.#options.durableLsn();
    if (durable - this.#advancedLsn < ADVANCE_BYTES) return;
    this.#advancedLsn = durable;
    await this.#advance(this.#options.slot, durable);
  }

  async #advance(slot: string, lsn: Lsn): Promise<void> {
    await this.#options.connection.query(
      `select pg_catalog.pg_replication_slot_advance(${quoteLiteral(slot)}, ${quoteLiteral(formatLsn(lsn))})`,
    );
  }
}
