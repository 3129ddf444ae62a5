import { createHash } from "node:crypto";
import type { Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGzip, type Gzip } from "node:zlib";
import type { Encrypter } from "age-encryption";
import { type Change, RowChange } from "../change/change.ts";
import type { Relation } from "../change/relation.ts";
import type { ChangeSink } from "../change/sink.ts";
import { COLUMN_BINARY, COLUMN_UNCHANGED, TupleReader } from "../change/tuple.ts";
import { HEADER } from "../wire/frames.ts";
import { unwritable } from "./carrier-errors.ts";
import { encrypted } from "./encryption.ts";
import { type CarrierHeader, FORMAT_VERSION, MAGIC, RECORD } from "./format.ts";

export interface CarrierWriterOptions {
  readonly header: CarrierHeader;
  /** Of the tables in the header, in their order; changes are of these objects. */
  readonly relations: readonly Relation[];
  /** Undefined leaves the file in clear. */
  readonly encrypter: Encrypter | undefined;
  readonly signal: AbortSignal;
}

/** Records are handed to the compressor in pieces of this size. */
const PIECE_BYTES = 64 * 1024;

/**
 * Writes a carrier file: docs/carrier-format.md. Nothing is written in parts of a record, and nothing is held but what streams hold.
 * The output is ended by `finish`, and destroyed by the signal.
 */
export class CarrierWriter implements Pick<ChangeSink, "change" | "full" | "whenRoom"> {
  readonly #gzip: Gzip = createGzip({ chunkSize: PIECE_BYTES });
  readonly #indexes: ReadonlyMap<Relation, number>;
  readonly #tuple = new TupleReader();
  readonly #written: Promise<void>;
  /** Rejects when the file cannot be written (ERS-612), or with the signal's AbortError. */
  readonly failed: Promise<never>;
  #piece: Buffer = Buffer.alloc(0);
  #at = 0;
  #records = 0;
  #rows = 0;
  #bytes = 0;

  constructor(output: Writable, { header, relations, encrypter, signal }: CarrierWriterOptions) {
    this.#indexes = new Map(relations.map((relation, index) => [relation, index]));
    const written = pipeline(
      this.#gzip,
      (compressed: AsyncIterable<Buffer>) =>
        this.#framed(encrypter === undefined ? compressed : encrypted(compressed, encrypter)),
      output,
      { signal },
    );
    this.#written = written.catch((error: unknown) => {
      throw signal.aborted ? error : unwritable(error);
    });
    this.failed = new Promise((_resolve, reject) => void this.#written.catch(reject));
    this.failed.catch(() => {});
    this.#header(header);
  }

  /** Rows of the records so far. */
  get rows(): number {
    return this.#rows;
  }

  /** Bytes of the file so far. */
  get bytes(): number {
    return this.#bytes;
  }

  get full(): boolean {
    return this.#gzip.writableNeedDrain;
  }

  /** Never rejects: whoever waits hears of it by `failed`. */
  async whenRoom(): Promise<void> {
    if (!this.full) return;
    await new Promise<void>((resolve) => {
      const settle = (): void => {
        this.#gzip.off("drain", settle).off("close", settle);
        resolve();
      };
      this.#gzip.on("drain", settle).on("close", settle);
    });
  }

  change(change: Change): void {
    if (change instanceof RowChange) this.#row(change);
    else if (change.asDelete) this.#tables(RECORD.deleteAll, change.relations);
    else this.#tables(RECORD.truncate, change.relations);
  }

  /** Ends the file; resolves when the output has it all. */
  async finish(): Promise<void> {
    const [records, rows] = [this.#records, this.#rows];
    this.#begin(RECORD.end, 16);
    this.#at = this.#piece.writeBigUInt64BE(BigInt(records), this.#at);
    this.#at = this.#piece.writeBigUInt64BE(BigInt(rows), this.#at);
    this.#flush();
    this.#gzip.end();
    await this.#written;
  }

  /** The first line in front, and the digest of it all behind. */
  async *#framed(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    const hash = createHash("sha256");
    const counted = (part: Uint8Array): Uint8Array => {
      this.#bytes += part.length;
      return part;
    };
    const line = Buffer.from(`${MAGIC}${FORMAT_VERSION}\n`);
    hash.update(line);
    yield counted(line);
    for await (const part of body) {
      hash.update(part);
      yield counted(part);
    }
    yield counted(hash.digest());
  }

  /** With a digest of its own: whoever reads it acts on it before he has read the rest. */
  #header(header: CarrierHeader): void {
    const json = Buffer.from(JSON.stringify(header));
    const digest = createHash("sha256").update(json).digest();
    this.#begin(RECORD.header, digest.length + json.length);
    this.#copy(digest, 0, digest.length);
    this.#copy(json, 0, json.length);
  }

  #tables(type: number, relations: readonly Relation[]): void {
    this.#begin(type, 2 * relations.length);
    for (const relation of relations) this.#table(relation);
  }

  #row({ kind, relation, bytes, oldStart, newStart }: RowChange): void {
    const start = kind === "delete" ? oldStart : newStart;
    const end = this.#endOf(bytes, start);
    this.#begin(RECORD[kind], 2 + end - start);
    this.#table(relation);
    this.#copy(bytes, start, end);
    this.#rows++;
  }

  /** Of a row image, all of whose values have to be text. */
  #endOf(bytes: Buffer, start: number): number {
    const tuple = this.#tuple.reset(bytes, start);
    for (let column = 0; column < tuple.columns; column++) {
      tuple.next();
      if (tuple.kind === COLUMN_BINARY || tuple.kind === COLUMN_UNCHANGED)
        throw new Error("a carrier file takes values as text, and all of them");
    }
    return tuple.position;
  }

  #table(relation: Relation): void {
    this.#at = this.#piece.writeUInt16BE(this.#indexes.get(relation) as number, this.#at);
  }

  /** A record of `length` bytes behind its type byte and Int32 length. */
  #begin(type: number, length: number): void {
    if (this.#at + HEADER + length > this.#piece.length) {
      this.#flush();
      this.#piece = Buffer.allocUnsafe(Math.max(PIECE_BYTES, HEADER + length));
    }
    this.#piece[this.#at] = type;
    this.#at = this.#piece.writeInt32BE(4 + length, this.#at + 1);
    this.#records++;
  }

  #copy(bytes: Buffer, start: number, end: number): void {
    this.#at += bytes.copy(this.#piece, this.#at, start, end);
  }

  /** The compressor keeps the memory. */
  #flush(): void {
    if (this.#at > 0) this.#gzip.write(this.#piece.subarray(0, this.#at));
    this.#piece = Buffer.alloc(0);
    this.#at = 0;
  }
}
