import { ErserverError } from "../errors/erserver-error.ts";

/**
 * The longest frame that a server can send: its messages are built in memory of at most MaxAllocSize
 * (0x3fffffff bytes), the length word counts itself.
 */
const MAX_LENGTH = 0x3fffffff + 4;
/** Type byte and Int32 length. */
export const HEADER = 5;

const EMPTY = Buffer.alloc(0);

/**
 * Finds the frames of the protocol (type byte, Int32 length that counts itself, payload) in a stream of chunks.
 *
 *     reader.push(chunk);
 *     while (reader.next()) use(reader.type, reader.bytes, reader.start, reader.end);
 *
 * A frame that lies whole in one chunk is a view of that chunk; one that spans chunks is put together once, in
 * memory of exactly its size. Neither is ever written again, so both may be kept.
 * https://www.postgresql.org/docs/current/protocol-overview.html#PROTOCOL-MESSAGE-CONCEPTS
 */
export class FrameReader {
  /** Type byte of the current frame. */
  type = 0;
  /** Memory that holds the current frame; its header is at `start - HEADER`. */
  bytes: Buffer = EMPTY;
  /** First byte of the payload. */
  start = 0;
  /** Behind the last byte of the payload. */
  end = 0;

  #chunk: Buffer = EMPTY;
  #at = 0;
  /** Stream bytes before the current chunk. */
  #before = 0;
  readonly #header = Buffer.alloc(HEADER);
  /** The frame that spans chunks, once its length is known, and how much of it has come. */
  #spanning: Buffer | undefined;
  #filled = 0;

  /** Gives the next chunk. Call it only after `next()` has returned false. */
  push(chunk: Buffer): void {
    this.#before += this.#chunk.length;
    this.#chunk = chunk;
    this.#at = 0;
  }

  /** Moves to the next whole frame; false when more bytes are needed. Throws ERS-602 on an impossible length. */
  next(): boolean {
    if (this.#filled > 0) return this.#assemble();
    const chunk = this.#chunk;
    const at = this.#at;
    if (at + HEADER > chunk.length) return this.#assemble();
    const length = readInt32(chunk, at + 1);
    if (length < 4 || length > MAX_LENGTH)
      throw this.#impossible(chunk[at] as number, length, this.#before + at);
    const end = at + 1 + length;
    if (end > chunk.length) return this.#assemble();
    this.type = chunk[at] as number;
    this.bytes = chunk;
    this.start = at + HEADER;
    this.end = end;
    this.#at = end;
    return true;
  }

  /** True when every byte pushed so far belongs to a frame that has been handed out. */
  get aligned(): boolean {
    return this.#filled === 0 && this.#at === this.#chunk.length;
  }

  /** Offset of the current frame in the stream, for messages about it. */
  get position(): number {
    return this.#before + this.#at - (this.end - this.start) - HEADER;
  }

  /** The error for a current frame that the protocol does not allow here. */
  violation(what: string): ErserverError {
    return violation(`message ${typeName(this.type)} at byte ${this.position} ${what}`);
  }

  #assemble(): boolean {
    const chunk = this.#chunk;
    let frame = this.#spanning;
    if (frame === undefined) {
      const header = this.#header;
      while (this.#filled < HEADER && this.#at < chunk.length) {
        header[this.#filled++] = chunk[this.#at++] as number;
      }
      if (this.#filled < HEADER) return this.#exhausted();
      const length = readInt32(header, 1);
      if (length < 4 || length > MAX_LENGTH) {
        throw this.#impossible(header[0] as number, length, this.#before + this.#at - HEADER);
      }
      frame = Buffer.allocUnsafe(1 + length);
      header.copy(frame);
      this.#spanning = frame;
    }
    const copied = chunk.copy(frame, this.#filled, this.#at);
    this.#filled += copied;
    this.#at += copied;
    if (this.#filled < frame.length) return this.#exhausted();
    this.type = frame[0] as number;
    this.bytes = frame;
    this.start = HEADER;
    this.end = frame.length;
    this.#spanning = undefined;
    this.#filled = 0;
    return true;
  }

  /** Lets go of the last frame, which may be a large one, while waiting for more. */
  #exhausted(): false {
    this.bytes = EMPTY;
    this.start = 0;
    this.end = 0;
    return false;
  }

  #impossible(type: number, length: number, position: number): ErserverError {
    return violation(`message ${typeName(type)} at byte ${position} claims a length of ${length}`);
  }
}

/** Signed 32 bits, big-endian, without the range checks of Buffer: the caller knows that four bytes are there. */
export function readInt32(bytes: Buffer, at: number): number {
  return (
    ((bytes[at] as number) << 24) |
    ((bytes[at + 1] as number) << 16) |
    ((bytes[at + 2] as number) << 8) |
    (bytes[at + 3] as number)
  );
}

function typeName(type: number): string {
  return type > 0x20 && type < 0x7f
    ? `'${String.fromCharCode(type)}'`
    : `0x${type.toString(16).padStart(2, "0")}`;
}

function violation(message: string): ErserverError {
  return new ErserverError("ERS-602", message, {
    remedy:
      "Check that nothing between erserver and the server changes the protocol, such as a pooler; report this otherwise.",
  });
}
