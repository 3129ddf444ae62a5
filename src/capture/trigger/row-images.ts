import { RowChange } from "../../change/change.ts";
import type { Relation } from "../../change/relation.ts";
import { COLUMN_BINARY, COLUMN_NULL, COLUMN_TEXT } from "../../change/tuple.ts";
import { INSERT } from "./changes-query.ts";

/** Row images share memory of this size; a larger one has its own. */
const SLAB = 64 * 1024;

/**
 * Makes changes of the rows of a query: DataRow has each value's length and bytes, TupleData the same with a byte in front.
 * https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-DATAROW
 */
export class RowImages {
  readonly #valueKind: number;
  #slab: Buffer = Buffer.alloc(0);
  #at = 0;

  constructor(format: "text" | "binary") {
    this.#valueKind = format === "binary" ? COLUMN_BINARY : COLUMN_TEXT;
  }

  /** A row of `presentQuery`. */
  present(relation: Relation, bytes: Buffer, start: number, end: number): RowChange {
    const columns = bytes.readInt16BE(start) - 1;
    // Behind the number of columns, and the length of the first, which is one letter.
    const how = bytes[start + 6];
    const newStart = this.#begin(columns, end - start + columns);
    let at = start + 7;
    for (let column = 0; column < columns; column++) at = this.#copy(bytes, at);
    const kind = how === INSERT.charCodeAt(0) ? "insert" : "update";
    return new RowChange(kind, relation, this.#slab, -1, false, newStart, false, this.#at - newStart);
  }

  /** A row of `removedQuery`; `indexes` says which columns of the table its values are. */
  removed(
    relation: Relation,
    indexes: readonly number[],
    bytes: Buffer,
    start: number,
    end: number,
  ): RowChange {
    const columns = relation.columns.length;
    const oldStart = this.#begin(columns, end - start + columns);
    const values: number[] = [];
    let at = start + 2;
    for (const index of indexes) {
      values[index] = at;
      at += 4 + Math.max(0, bytes.readInt32BE(at));
    }
    for (let column = 0; column < columns; column++) {
      const value = values[column];
      if (value === undefined) this.#slab[this.#at++] = COLUMN_NULL;
      else this.#copy(bytes, value);
    }
    return new RowChange("delete", relation, this.#slab, oldStart, true, -1, false, this.#at - oldStart);
  }

  /** Opens an image that takes no more than `most` bytes; returns where it begins. */
  #begin(columns: number, most: number): number {
    if (this.#at + most > this.#slab.length) {
      this.#slab = Buffer.allocUnsafeSlow(Math.max(SLAB, most));
      this.#at = 0;
    }
    const start = this.#at;
    this.#at = this.#slab.writeInt16BE(columns, start);
    return start;
  }

  /** Copies the value at `at` of a DataRow; returns where the next one is. */
  #copy(bytes: Buffer, at: number): number {
    const length = bytes.readInt32BE(at);
    if (length < 0) {
      this.#slab[this.#at++] = COLUMN_NULL;
      return at + 4;
    }
    this.#slab[this.#at++] = this.#valueKind;
    bytes.copy(this.#slab, this.#at, at, at + 4 + length);
    this.#at += 4 + length;
    return at + 4 + length;
  }
}
