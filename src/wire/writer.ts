/** Memory is taken in slabs that grow from the first to the second size, so that a small message stays cheap. */
const FIRST_SLAB = 8 * 1024;
const LARGEST_SLAB = 256 * 1024;
/** Up to this length a loop beats Buffer.copy, which makes a view first. */
const LOOP_COPY = 48;
/** From this length on a value is handed out as it is: a part more to send costs less than the copy. */
const LARGE = 64 * 1024;
/** The server refuses longer messages (PQ_LARGE_MESSAGE_LIMIT). */
const MAX_LENGTH = 0x3fffffff - 1;

const EMPTY = Buffer.alloc(0);

/**
 * Writes frames one behind the other into a buffer that grows; `take()` or `takeRuns()` hands out what has been written.
 * A buffer that was handed out is never written again.
 */
export class FrameWriter {
  #buffer: Buffer = EMPTY;
  /** First byte that is neither taken nor in a run. */
  #start = 0;
  #at = 0;
  /** What comes before it: parts of buffers, and large values as they are. */
  #runs: Buffer[] = [];
  #runBytes = 0;
  /** Where the length of the open frame goes, -1 when none is open; it may be in a run. */
  #lengthIn: Buffer = EMPTY;
  #lengthAt = -1;
  /** `buffered` when the frame was opened, behind its type. */
  #opened = 0;
  #slab = FIRST_SLAB;

  /** Bytes written and not yet taken. */
  get buffered(): number {
    return this.#runBytes + this.#at - this.#start;
  }

  /** Opens a frame: a message type of `frontend.ts`. */
  begin(type: number): void {
    this.#reserve(5);
    this.#buffer[this.#at] = type;
    this.#lengthIn = this.#buffer;
    this.#lengthAt = this.#at + 1;
    this.#opened = this.buffered + 1;
    this.#at += 5;
  }

  /** Closes the open frame. Throws RangeError when it has become longer than any server accepts. */
  end(): void {
    const length = this.buffered - this.#opened;
    if (length > MAX_LENGTH)
      throw new RangeError(`a message of ${length} bytes is longer than a server accepts`);
    setInt32(this.#lengthIn, this.#lengthAt, length);
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
    setInt32(this.#buffer, this.#at, value);
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

  /** As `bytes`, but what is large is not copied: it must not change afterwards. */
  lasting(source: Buffer, start: number, end: number): void {
    if (end - start < LARGE) {
      this.bytes(source, start, end);
      return;
    }
    this.#endRun();
    this.#addRun(source.subarray(start, end));
  }

  /** Hands out everything written since the last call, which must be whole frames. */
  take(): Buffer {
    const runs = this.takeRuns();
    return runs.length === 1 ? (runs[0] as Buffer) : Buffer.concat(runs);
  }

  /** The same in the parts that it lies in, none of them empty. */
  takeRuns(): readonly Buffer[] {
    if (this.#lengthAt >= 0) throw new Error("a frame is still open");
    this.#endRun();
    const runs = this.#runs;
    this.#runs = [];
    this.#runBytes = 0;
    return runs;
  }

  #endRun(): void {
    if (this.#at > this.#start) this.#addRun(this.#buffer.subarray(this.#start, this.#at));
    this.#start = this.#at;
  }

  #addRun(run: Buffer): void {
    this.#runs.push(run);
    this.#runBytes += run.length;
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
    if (this.#lengthIn === this.#buffer && this.#lengthAt >= this.#start) {
      this.#lengthIn = buffer;
      this.#lengthAt -= this.#start;
    }
    this.#buffer = buffer;
    this.#start = 0;
    this.#at = kept;
  }
}

function setInt32(buffer: Buffer, at: number, value: number): void {
  buffer[at] = value >>> 24;
  buffer[at + 1] = value >>> 16;
  buffer[at + 2] = value >>> 8;
  buffer[at + 3] = value;
}
