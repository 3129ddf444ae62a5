import { ErserverError } from "../errors/erserver-error.ts";

/** Microseconds from 1970-01-01, our epoch, to 2000-01-01, PostgreSQL's. */
const POSTGRES_EPOCH_US = 946_684_800_000_000;

/** Refuses what is not UTF-8, rather than putting replacement characters into a name. */
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Reads the parts of one message; every read is checked against its end. Reused from message to message. */
export class MessageReader {
  bytes: Buffer = Buffer.alloc(0);
  /** Next byte to read. */
  at = 0;
  end = 0;
  #start = 0;

  reset(bytes: Buffer, start: number, end: number): void {
    this.bytes = bytes;
    this.#start = start;
    this.at = start;
    this.end = end;
  }

  /** Bytes of the whole message. */
  get size(): number {
    return this.end - this.#start;
  }

  get remaining(): number {
    return this.end - this.at;
  }

  uint8(): number {
    return this.bytes[this.#advance(1)] as number;
  }

  uint16(): number {
    const at = this.#advance(2);
    const { bytes } = this;
    return ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
  }

  int32(): number {
    const at = this.#advance(4);
    const { bytes } = this;
    return (
      ((bytes[at] as number) << 24) |
      ((bytes[at + 1] as number) << 16) |
      ((bytes[at + 2] as number) << 8) |
      (bytes[at + 3] as number)
    );
  }

  uint32(): number {
    return this.int32() >>> 0;
  }

  /** An Int32 that counts something: never negative. */
  length(): number {
    const value = this.int32();
    if (value < 0) throw this.malformedAt(this.at - 4, "a length is negative");
    return value;
  }

  uint64(): bigint {
    const high = this.uint32();
    const low = this.uint32();
    return (BigInt(high) << 32n) | BigInt(low);
  }

  /** A timestamptz as microseconds since 1970, exactly. */
  timestamp(): number {
    const microseconds = this.int32() * 0x1_0000_0000 + this.uint32() + POSTGRES_EPOCH_US;
    if (!Number.isSafeInteger(microseconds)) throw this.malformedAt(this.at - 8, "a time is out of range");
    return microseconds;
  }

  cstring(): string {
    const start = this.at;
    const zero = this.bytes.indexOf(0, start);
    if (zero < 0 || zero >= this.end) throw this.malformed("a string has no end");
    this.at = zero + 1;
    try {
      return utf8.decode(this.bytes.subarray(start, zero));
    } catch {
      throw this.malformedAt(start, "a string is not UTF-8");
    }
  }

  skip(length: number): void {
    this.#advance(length);
  }

  /** Requires that the whole message has been read. */
  finish(): void {
    if (this.at !== this.end) throw this.malformed("it is longer than its content");
  }

  malformed(what: string): ErserverError {
    return this.malformedAt(this.at, what);
  }

  malformedAt(at: number, what: string): ErserverError {
    const type = this.size > 0 ? (this.bytes[this.#start] as number) : 0;
    const name =
      type > 0x20 && type < 0x7f
        ? `'${String.fromCharCode(type)}'`
        : `0x${type.toString(16).padStart(2, "0")}`;
    return new ErserverError(
      "ERS-601",
      `pgoutput message ${name} is malformed at byte ${at - this.#start} of ${this.size}: ${what}`,
      {
        remedy:
          "Start the pipeline again; nothing of this transaction was applied. Report this when it comes back.",
      },
    );
  }

  /** Moves behind the next `length` bytes and returns where they start. */
  #advance(length: number): number {
    const { at } = this;
    if (length > this.end - at) throw this.malformed("it is too short");
    this.at = at + length;
    return at;
  }
}
