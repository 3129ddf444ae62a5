import { createHash } from "node:crypto";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip } from "node:zlib";
import type { Decrypter } from "age-encryption";
import { RowChange, type RowChangeKind, TruncateChange } from "../change/change.ts";
import type { Relation } from "../change/relation.ts";
import type { ChangeSink } from "../change/sink.ts";
import { COLUMN_NULL, COLUMN_TEXT } from "../change/tuple.ts";
import { onAbort } from "../runtime/abort.ts";
import { FrameReader, readInt32 } from "../wire/frames.ts";
import { damaged, empty, newerFormat, noIdentity, notACarrier, unreadable } from "./carrier-errors.ts";
import { AGE_BEGINS, decrypted, decrypterFor } from "./encryption.ts";
import { type CarrierHeader, DIGEST_BYTES, FORMAT_VERSION, MAGIC, RECORD } from "./format.ts";

export interface CarrierReaderOptions {
  /** An age identity, for a file that is encrypted. */
  readonly identity: string | undefined;
  readonly signal: AbortSignal;
}

/** Where the changes of a file go. Disposed of when the file turns out to be no good. */
export interface CarrierReceiver extends AsyncDisposable {
  /** Of the header's tables, in their order; changes are of these objects. */
  readonly relations: readonly Relation[];
  readonly sink: Pick<ChangeSink, "change" | "full" | "whenRoom">;
  /** Rejects when it takes no more: the rest of the file is not waited for. */
  readonly failed: Promise<never>;
}

/** A file that has been read to its end, and is as it was written. */
export interface ReadCarrier<Receiver> {
  readonly receiver: Receiver;
  readonly rows: number;
}

/**
 * Reads a carrier file to its end: `receive` gets the header, which can be relied upon, and what it returns the changes, which can be
 * relied upon only when this resolves: whatever was done with them has to be taken back when the receiver is disposed of instead.
 * Throws ERS-604 to 607 and 612, what the receiver throws, and an AbortError with the signal.
 */
export async function readCarrier<Receiver extends CarrierReceiver>(
  input: Readable,
  { identity, signal }: CarrierReaderOptions,
  receive: (header: CarrierHeader) => Promise<Receiver>,
): Promise<ReadCarrier<Receiver>> {
  const decrypter = identity === undefined ? undefined : await decrypterFor(identity);
  const giveUp = new AbortController();
  const records = new RecordReader(async (header) => {
    const receiver = await receive(header);
    receiver.failed.catch((reason: unknown) => giveUp.abort(reason));
    return receiver;
  });
  const ends = AbortSignal.any([signal, giveUp.signal]);
  // It may be waited for.
  using _end = onAbort(ends, () => input.destroy());
  let reading: Promise<void> | undefined;
  try {
    await pipeline(
      compressed(input, decrypter),
      createGunzip({ chunkSize: 64 * 1024 }),
      (chunks: AsyncIterable<Buffer>) => (reading = records.read(chunks)),
      { signal: ends },
    );
    return records.finish();
  } catch (error) {
    input.destroy();
    // It may be receiving the header still.
    await reading?.catch(() => {});
    const reason: unknown = ends.aborted ? ends.reason : error;
    await records.receiver?.[Symbol.asyncDispose]();
    throw isOfZlib(reason) ? damaged(reason.message, reason) : reason;
  }
}

function isOfZlib(error: unknown): error is Error {
  return error instanceof Error && "code" in error && String(error.code).startsWith("Z_");
}

async function* compressed(input: Readable, decrypter: Decrypter | undefined): AsyncGenerator<Uint8Array> {
  const body = bodyOf(input);
  const { value: first, done } = await body.next();
  if (done === true) throw damaged("nothing follows its first line");
  const whole = prepended(first, body);
  if (first[0] !== AGE_BEGINS.charCodeAt(0)) yield* whole;
  else if (decrypter === undefined) throw noIdentity();
  else yield* decrypted(whole, decrypter);
}

/** What is between the first line and the digest, which is compared before this ends. */
async function* bodyOf(input: Readable): AsyncGenerator<Buffer> {
  const hash = createHash("sha256");
  /** Not handed on yet: what may be part of the first line, or of the digest. */
  let held: Buffer = Buffer.alloc(0);
  let isBody = false;
  let isEmpty = true;
  for await (const chunk of readable(input)) {
    isEmpty &&= chunk.length === 0;
    held = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
    if (!isBody) {
      const length = firstLine(held);
      if (length === undefined) continue;
      hash.update(held.subarray(0, length));
      held = held.subarray(length);
      isBody = true;
    }
    const ready = held.length - DIGEST_BYTES;
    if (ready <= 0) continue;
    hash.update(held.subarray(0, ready));
    yield held.subarray(0, ready);
    held = held.subarray(ready);
  }
  if (isEmpty) throw empty();
  if (!isBody || held.length < DIGEST_BYTES) throw damaged("it ends too early");
  if (!hash.digest().equals(held)) throw damaged("its SHA-256 is another than it says");
}

/** Length of the first line, undefined while it is not all there. Throws ERS-604 or 605. */
function firstLine(bytes: Buffer): number | undefined {
  const begins = bytes.subarray(0, MAGIC.length).toString("latin1");
  if (!MAGIC.startsWith(begins)) throw notACarrier();
  const end = bytes.indexOf("\n");
  const line = bytes.subarray(MAGIC.length, end < 0 ? bytes.length : end).toString("latin1");
  if (!/^\d{0,6}$/.test(line)) throw notACarrier();
  if (end < 0) return undefined;
  const version = Number(line);
  if (version > FORMAT_VERSION) throw newerFormat(line, FORMAT_VERSION);
  if (version !== FORMAT_VERSION) throw notACarrier();
  return end + 1;
}

async function* readable(input: Readable): AsyncGenerator<Buffer> {
  try {
    yield* input as AsyncIterable<Buffer>;
  } catch (error) {
    throw (error as Error).name === "AbortError" ? error : unreadable(error);
  }
}

async function* prepended(first: Uint8Array, rest: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield first;
  yield* rest;
}

const KINDS = new Map<number, RowChangeKind>([
  [RECORD.insert, "insert"],
  [RECORD.update, "update"],
  [RECORD.delete, "delete"],
]);

/** Makes changes of records, each checked before it is handed on: its table, its columns, every length. */
class RecordReader<Receiver extends CarrierReceiver> {
  readonly #frames = new FrameReader();
  readonly #receive: (header: CarrierHeader) => Promise<Receiver>;
  #receiver: Receiver | undefined;
  #records = 0;
  #rows = 0;
  #ended = false;

  constructor(receive: (header: CarrierHeader) => Promise<Receiver>) {
    this.#receive = receive;
  }

  get receiver(): Receiver | undefined {
    return this.#receiver;
  }

  async read(chunks: AsyncIterable<Buffer>): Promise<void> {
    for await (const chunk of chunks) await this.#push(chunk);
  }

  finish(): ReadCarrier<Receiver> {
    if (this.#receiver === undefined || !this.#ended) throw damaged("it has no end record");
    return { receiver: this.#receiver, rows: this.#rows };
  }

  async #push(chunk: Buffer): Promise<void> {
    this.#frames.push(chunk);
    while (this.#next()) {
      const { type } = this.#frames;
      if (this.#receiver === undefined) this.#receiver = await this.#receive(this.#header());
      else if (this.#ended) throw damaged("something follows its end");
      else if (type === RECORD.end) this.#end();
      else this.#change(this.#receiver);
      this.#records++;
    }
    const sink = this.#receiver?.sink;
    if (sink?.full === true) await sink.whenRoom();
  }

  #next(): boolean {
    try {
      return this.#frames.next();
    } catch (error) {
      throw damaged((error as Error).message, error);
    }
  }

  #header(): CarrierHeader {
    const { type, bytes, start, end } = this.#frames;
    if (type !== RECORD.header || end - start < DIGEST_BYTES)
      throw damaged("it does not begin with a header");
    const json = bytes.subarray(start + DIGEST_BYTES, end);
    const digest = createHash("sha256").update(json).digest();
    if (!digest.equals(bytes.subarray(start, start + DIGEST_BYTES)))
      throw damaged("the SHA-256 of its header is another than it says");
    return JSON.parse(json.toString()) as CarrierHeader;
  }

  #end(): void {
    const { bytes, start, end } = this.#frames;
    if (end - start !== 16) throw damaged("its end record is of another size");
    const [records, rows] = [bytes.readBigUInt64BE(start), bytes.readBigUInt64BE(start + 8)];
    if (records !== BigInt(this.#records) || rows !== BigInt(this.#rows))
      throw damaged(`it has ${this.#records} records of ${this.#rows} rows, and says ${records} of ${rows}`);
    this.#ended = true;
  }

  #change({ relations, sink }: CarrierReceiver): void {
    const { type, bytes, start, end } = this.#frames;
    const size = end - start;
    const kind = KINDS.get(type);
    if (kind !== undefined) {
      if (size < 4) throw damaged("a row is too short");
      const relation = this.#relation(relations, start);
      requireTuple(bytes, start + 2, end, relation.columns.length);
      this.#rows++;
      const [oldStart, newStart] = kind === "delete" ? [start + 2, -1] : [-1, start + 2];
      sink.change(new RowChange(kind, relation, bytes, oldStart, kind === "delete", newStart, false, size));
      return;
    }
    const asDelete = type === RECORD.deleteAll;
    if (!asDelete && type !== RECORD.truncate) throw damaged("a record is of no known type");
    if (size === 0 || size % 2 !== 0 || (asDelete && size !== 2)) throw damaged("its tables are incomplete");
    const emptied: Relation[] = [];
    for (let at = start; at < end; at += 2) emptied.push(this.#relation(relations, at));
    sink.change(new TruncateChange(emptied, false, false, 0, asDelete));
  }

  #relation(relations: readonly Relation[], at: number): Relation {
    const relation = relations[this.#frames.bytes.readUInt16BE(at)];
    if (relation === undefined) throw damaged("a record is of a table that the header does not have");
    return relation;
  }
}

/** One row image that ends where the record does: nobody checks it later. */
function requireTuple(bytes: Buffer, start: number, end: number, columns: number): void {
  if (bytes.readUInt16BE(start) !== columns)
    throw damaged("a row has another number of columns than its table");
  let at = start + 2;
  for (let column = 0; column < columns; column++) {
    const kind = at < end ? bytes[at] : 0;
    if (kind === COLUMN_NULL) at++;
    else if (kind === COLUMN_TEXT && at + 5 <= end) {
      const length = readInt32(bytes, at + 1);
      if (length < 0 || length > end - at - 5) throw damaged("the length of a value is impossible");
      at += 5 + length;
    } else throw damaged("a value is of no known kind");
  }
  if (at !== end) throw damaged("a row is longer than its values");
}
