import { formatLsn, type Lsn, parseLsn, ZERO_LSN } from "../../change/lsn.ts";
import type { ChangeSink } from "../../change/sink.ts";
import { ErserverError } from "../../errors/erserver-error.ts";
import type { PgoutputDecoder } from "../../pgoutput/decoder.ts";
import { temporarySlotName } from "../../postgres/slots.ts";
import { quoteLiteral } from "../../quote/literal.ts";
import type { TextRow } from "../../wire/backend.ts";
import type { WireConnection } from "../../wire/connection.ts";
import { framePayloads } from "../../wire/frame-runs.ts";
import { heedNotices } from "./capture-errors.ts";
import { type Bite, nextBite, type SlotPosition } from "./bites.ts";
import { pgoutputOptions, type StreamContents } from "./pgoutput-options.ts";

export interface BulkReaderOptions extends StreamContents {
  /** Opens an ordinary connection, which belongs to the reader from then on. */
  readonly connect: () => Promise<WireConnection>;
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

/** So much of a bite tells how large its messages are. The first run of large rows has none of them: only BEGIN, which came before. */
const SAMPLE_BYTES = 64 * 1024;

/** Signature, flags, and the length of the header's extension. */
const COPY_HEADER_LENGTH = 19;
const COPY_SIGNATURE = 0x50;

/** A session, and its temporary slot, which stands behind the bite that it read last. */
interface Reading {
  readonly connection: WireConnection;
  readonly slot: string;
}

/** A bite that the source is at work on. */
interface Pending {
  readonly reading: Reading;
  /** Where it begins. */
  readonly fromLsn: Lsn;
  readonly bite: Pick<Bite, "wal" | "size">;
  readonly rows: AsyncGenerator<Buffer, void, undefined>;
  readonly first: Promise<IteratorResult<Buffer, void>>;
}

/**
 * Reads a backlog with the SQL function for it instead of a WAL sender, which makes one send() for each row. The pipeline's own slot
 * must not move before the target has the changes, so temporary copies of it read ahead; they go with their sessions.
 *
 * The function collects all of a bite before it gives the first row, and its slot stands behind the bite by then. So from that
 * moment on a second session, with a copy of that slot, decodes the next bite while the first sends this one.
 * https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-REPLICATION
 */
export class BulkReader {
  readonly #options: BulkReaderOptions;
  readonly #connections: WireConnection[] = [];
  /** The first slot. */
  #begin!: { readonly here: Reading; readonly at: SlotPosition };
  #left = false;
  #wake: (() => void) | undefined;
  #endLsn: Lsn = ZERO_LSN;
  #advancedLsn: Lsn;

  private constructor(options: BulkReaderOptions) {
    this.#options = options;
    this.#advancedLsn = options.startLsn;
  }

  /** Throws the server's error when it does not let us. */
  static async open(options: BulkReaderOptions): Promise<BulkReader> {
    const reader = new BulkReader(options);
    try {
      await Promise.all([reader.#connect(), reader.#connect()]);
      const [first] = reader.#connections as [WireConnection, WireConnection];
      reader.#begin = await reader.#copySlot(first, options.slot);
      return reader;
    } catch (error) {
      await reader.close();
      throw error;
    }
  }

  /** False when a connection broke. */
  get alive(): boolean {
    return this.#connections.every(({ alive }) => alive);
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
    const { startLsn, always, sink } = this.#options;
    let { here, at } = this.#begin;
    if (at.confirmedLsn < startLsn) {
      await this.#advance(here.connection, here.slot, startLsn);
      at = await this.#position(here);
    }
    let next: Pending | undefined;
    let last: Bite | undefined;
    while (!this.#left) {
      if (next === undefined) {
        this.#reached(at.confirmedLsn);
        next = this.#start(here, at, last);
        if (next === undefined) {
          if (!always) return at.confirmedLsn;
          await new Promise((resolve) => setTimeout(resolve, POLL_MS));
          at = await this.#position(here);
          continue;
        }
      } else this.#reached(next.fromLsn);
      const current: Pending = next;
      here = current.reading;
      let ahead: Promise<Pending | undefined> | undefined;
      let data = 0;
      let messages = 0;
      for (let row = await current.first; row.done !== true; row = await current.rows.next()) {
        const decoded = this.#decode(row.value);
        data += decoded.bytes;
        messages += decoded.messages;
        if (data > (always ? 0 : SAMPLE_BYTES) && ahead === undefined) {
          ahead = this.#startAhead(current, data / messages);
          ahead.catch(() => {});
        }
        if (sink.full) await this.#room();
        if (this.#left) return ZERO_LSN;
      }
      last = { ...current.bite, data, message: data / messages };
      next = await ahead;
      await this.#moveSlot(here.connection);
      if (next === undefined) at = await this.#position(here);
    }
    return ZERO_LSN;
  }

  /** Makes `read` end, if need be in the middle of a bite, whose rest is then lost to this reader. */
  leave(): void {
    this.#left = true;
    this.#wake?.();
  }

  async close(): Promise<void> {
    // In the middle of a bite there is nobody to say goodbye to.
    await Promise.all(
      this.#connections.map(async (connection) =>
        connection.busy ? connection.destroy() : connection.end(),
      ),
    );
  }

  async #connect(): Promise<void> {
    const connection = await this.#options.connect();
    this.#connections.push(connection);
    void connection.closed.then(() => this.leave());
    heedNotices({ ...this.#options, connection });
    // A bite takes as long as the target needs for it.
    await connection.query("set statement_timeout = 0; set work_mem = '64MB'");
  }

  /**
   * Gives the session a copy of a slot, instead of the one that it had, and tells where that stands. In one message: the
   * source may be far away.
   */
  async #copySlot(connection: WireConnection, from: string): Promise<{ here: Reading; at: SlotPosition }> {
    const slot = temporarySlotName(this.#options.slot, "bulk");
    const results = await connection.query(
      `select pg_catalog.pg_drop_replication_slot(slot_name) from pg_catalog.pg_replication_slots where temporary and active_pid = pg_catalog.pg_backend_pid();
       select pg_catalog.pg_copy_logical_replication_slot(${quoteLiteral(from)}, ${quoteLiteral(slot)}, true);
       ${positionOf(slot)}`,
    );
    return { here: { connection, slot }, at: this.#read(slot, results.at(-1)?.rows[0]) };
  }

  /** Lets the other session begin with the bite behind `current`, whose slot is there already, and whose messages so far say how large they are. */
  async #startAhead(current: Pending, message: number): Promise<Pending | undefined> {
    const connection = this.#connections.find((one) => one !== current.reading.connection) as WireConnection;
    const { here, at } = await this.#copySlot(connection, current.reading.slot);
    return this.#start(here, at, { ...current.bite, data: current.bite.wal, message });
  }

  /** All that commits before it has been delivered. */
  #reached(lsn: Lsn): void {
    if (!this.#options.decoder.inTransaction) this.#options.sink.idle(lsn);
  }

  #start(reading: Reading, at: SlotPosition, last: Bite | undefined): Pending | undefined {
    const bite = this.#bite(at, last);
    if (bite === undefined) return undefined;
    const upto = (at.confirmedLsn + BigInt(bite.wal)) as Lsn;
    const options = pgoutputOptions(this.#options).flat().map(quoteLiteral).join(", ");
    const copy = reading.connection.copyOut(
      `copy (select data from pg_catalog.pg_logical_slot_get_binary_changes(${quoteLiteral(reading.slot)}, ${quoteLiteral(formatLsn(upto))}, null, ${options})) to stdout (format binary)`,
    );
    const rows = copy[Symbol.asyncIterator]();
    const first = rows.next();
    first.catch(() => {});
    return { reading, fromLsn: at.confirmedLsn, bite, rows, first };
  }

  #bite(at: SlotPosition, last: Bite | undefined): Pick<Bite, "wal" | "size"> | undefined {
    if (!this.#options.always) return nextBite(at, last);
    const wal = Number(at.endLsn - at.confirmedLsn);
    return wal === 0 ? undefined : { wal, size: wal };
  }

  #decode(run: Buffer): { readonly bytes: number; readonly messages: number } {
    const { decoder } = this.#options;
    let bytes = 0;
    let messages = 0;
    framePayloads(run, (data, frameStart, end) => {
      const start = data[frameStart] === COPY_SIGNATURE ? frameStart + COPY_HEADER_LENGTH : frameStart;
      // One column, or the trailer.
      if (data.readInt16BE(start) !== 1) return;
      bytes += end - start;
      messages += 1;
      decoder.decode(data, start + 6, end);
    });
    return { bytes, messages };
  }

  /** Waits until the sink has room, or for `leave`. */
  async #room(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      void this.#options.sink.whenRoom().then(resolve);
      if (this.#left) resolve();
    });
  }

  async #position({ connection, slot }: Reading): Promise<SlotPosition> {
    const [result] = await connection.query(positionOf(slot));
    return this.#read(slot, result?.rows[0]);
  }

  #read(slot: string, row: TextRow | undefined): SlotPosition {
    const [restartLsn, confirmedLsn, endLsn] = (row ?? []).map((text) => parseLsn(text ?? ""));
    if (restartLsn === undefined || confirmedLsn === undefined || endLsn === undefined) {
      throw new ErserverError("ERS-502", `temporary replication slot "${slot}" is gone`, {
        subject: slot,
        remedy: "Nothing to do: the pipeline is opened anew by itself.",
      });
    }
    this.#endLsn = endLsn;
    return { restartLsn, confirmedLsn, endLsn };
  }

  /** Lets the source remove WAL. */
  async #moveSlot(connection: WireConnection): Promise<void> {
    const durable = this.#options.durableLsn();
    if (durable - this.#advancedLsn < ADVANCE_BYTES) return;
    this.#advancedLsn = durable;
    await this.#advance(connection, this.#options.slot, durable);
  }

  async #advance(connection: WireConnection, slot: string, lsn: Lsn): Promise<void> {
    await connection.query(
      `select pg_catalog.pg_replication_slot_advance(${quoteLiteral(slot)}, ${quoteLiteral(formatLsn(lsn))})`,
    );
  }
}

const positionOf = (slot: string): string =>
  `select restart_lsn, confirmed_flush_lsn, pg_catalog.pg_current_wal_flush_lsn() from pg_catalog.pg_replication_slots where slot_name = ${quoteLiteral(slot)}`;
