/**
 * TupleData, the row image of the logical replication protocol, read in place:
 *
 *     Int16            number of columns
 *     per column:
 *       Byte1          'n' NULL · 'u' unchanged TOAST value, not sent · 't' text · 'b' binary
 *       Int32, Byten   for 't' and 'b': length and bytes
 *
 * https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
 */
export const COLUMN_NULL = 0x6e;
export const COLUMN_UNCHANGED = 0x75;
export const COLUMN_TEXT = 0x74;
export const COLUMN_BINARY = 0x62;

/**
 * Walks the columns of one row image. Reuse one reader for many tuples: it allocates nothing.
 * The decoder has validated the bounds, so the reader does not check them again.
 */
export class TupleReader {
  bytes: Buffer = Buffer.alloc(0);
  /** Columns of the current tuple. */
  columns = 0;
  /** Kind of the current column: one of the COLUMN_ constants. */
  kind = 0;
  /** First byte and length of the current column's value; length 0 when there is none. */
  start = 0;
  length = 0;
  #next = 0;

  reset(bytes: Buffer, tupleStart: number): this {
    this.bytes = bytes;
    this.columns = bytes.readInt16BE(tupleStart);
    this.#next = tupleStart + 2;
    return this;
  }

  /** Moves to the next column; call it `columns` times. */
  next(): void {
    const { bytes } = this;
    const at = this.#next;
    const kind = bytes[at] as number;
    this.kind = kind;
    if (kind === COLUMN_TEXT || kind === COLUMN_BINARY) {
      this.length = bytes.readInt32BE(at + 1);
      this.start = at + 5;
      this.#next = at + 5 + this.length;
    } else {
      this.length = 0;
      this.start = at + 1;
      this.#next = at + 1;
    }
  }

  /** Offset behind the columns read so far. */
  get position(): number {
    return this.#next;
  }
}
