/** Memory is taken in slabs that grow from the first to the second size, so that a small message stays cheap. */
const FIRST_SLAB = 8 * 1024;
const LARGEST_SLAB = 256 * 1024;
/** Up to this length a loop beats Buffer.copy, which makes a view first. */
const LOOP_COPY = 48;
/** The server refuses longer messages (PQ_LARGE_MESSAGE_LIMIT). */
const MAX_LENGTH = 0x3fffffff - 1;

const EMPTY = Buffer.alloc(0);

/**
 * Writes frames one behind the other into a buffer that grows; `take()` hands out what has been written.
 * A buffer that was handed out is never written again.
 */
export class FrameWriter {
  #buffer: Buffer = EMPTY;
  /** First byte that has not been taken. */
  #start = 0;
  #at = 0;
  /** Where the length of the open frame goes, -1 when none is open. */
  #lengthAt = -1;
  #slab = FIRST_SLAB;

  /** Bytes written and not yet taken. */
  get buffered(): number {
    return this.#at - this.#start;
  }

  /** Opens a frame: a message type of `frontend.ts`. */
  begin(type: number): void {
    this.#reserve(5);
    this.#buffer[this.#at] = type;
    this.#lengthAt = this.#at + 1;
    this.#at += 5;
  }

  /** Closes the open frame. Throws RangeError when it has become longer than any server accepts. */
  end(): void {
    const length = this.#at - this.#lengthAt;
    if (length > MAX_LENGTH)
      throw new RangeError(`a message of ${length} bytes is longer than a server accepts`);
    this.#setInt32(this.#lengthAt, length);
    this.#lengthAt = -1;
  }

  int8(value: number): void {
    this.#reserve(1);
    this.#buffer[this.#at++] = value;
  }

  /** Signed or unsigned. */
  int16(value: number): void {
    this.#reserve(2);
    const buffer = this.#buffer;
    const at = this.#at;
    buffer[at] = value >>> 8;
    buffer[at + 1] = value;
    this.#at = at + 2;
  }

  /** Signed or unsigned. */
  int32(value: number): void {
    this.#reserve(4);
    this.#setInt32(this.#at, value);
    this.#at += 4;
  }

  /** Signed or unsigned. */
  int64(value: bigint): void {
    this.#reserve(8);
    this.#buffer.writeBigInt64BE(BigInt.asIntN(64, value), this.#at);
    this.#at += 8;
  }

  /** UTF-8 with the closing zero byte. Throws RangeError when the text holds a zero byte itself. */
  cstring(text: string): void {
    if (text.includes("\0")) throw new RangeError("a string with a zero byte cannot be sent");
    this.text(text);
    this.int8(0);
  }

  /** UTF-8 without a closing zero byte; returns its length in bytes. */
  text(text: string): number {
    this.#reserve(text.length * 3);
    const written = this.#buffer.write(text, this.#at, "utf8");
    this.#at += written;
    return written;
  }

  /** Copies `source[start, end)`: the part of a value, or whole frames. */
  bytes(source: Buffer, start = 0, end: number = source.length): void {
    const length = end - start;
    this.#reserve(length);
    const buffer = this.#buffer;
    let at = this.#at;
    if (length <= LOOP_COPY) {
      for (let from = start; from < end; from++) buffer[at++] = source[from] as number;
    } else {
      source.copy(buffer, at, start, end);
    }
    this.#at += length;
  }

  /** Hands out everything written since the last call, which must be whole frames. */
  take(): Buffer {
    if (this.#lengthAt >= 0) throw new Error("a frame is still open");
    const taken = this.#buffer.subarray(this.#start, this.#at);
    this.#start = this.#at;
    return taken;
  }

  #setInt32(at: number, value: number): void {
    const buffer = this.#buffer;
    buffer[at] = value >>> 24;
    buffer[at + 1] = value >>> 16;
    buffer[at + 2] = value >>> 8;
    buffer[at + 3] = value;
  }

  #reserve(length: number): void {
    if (this.#at + length > this.#buffer.length) this.#grow(length);
  }

  #grow(length: number): void {
    const kept = this.#at - this.#start;
    const size = Math.max(this.#slab, kept * 2, kept + length);
    this.#slab = Math.min(this.#slab * 2, LARGEST_SLAB);
    const buffer = Buffer.allocUnsafeSlow(size);
    this.#buffer.copy(buffer, 0, this.#start, this.#at);
    if (this.#lengthAt >= 0) this.#lengthAt -= this.#start;
    this.#buffer = buffer;
    this.#start = 0;
    this.#at = kept;
  }
}
