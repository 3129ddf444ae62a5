import type { RowChange } from "../change/change.ts";
import { COLUMN_BINARY, COLUMN_NULL, COLUMN_TEXT } from "../change/tuple.ts";
import { BINARY_FORMAT, type Batch, TEXT_FORMAT } from "../wire/batch.ts";
import { FrameWriter } from "../wire/writer.ts";
import { RowEncoder } from "./row-encoder.ts";
import type { ParameterSource } from "./statements.ts";

const BACKSLASH = 0x5c;
const QUOTE = 0x22;
const TAB = 0x09;
const NEWLINE = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const NULL_ELEMENT = Buffer.from("NULL");
const NULL_IN_COPY = Buffer.from("\\N");

/** Signature, flags and the length of the header's extension: https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.55.9.4.5 */
const COPY_HEADER = Buffer.from("PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0", "latin1");

/** Copies column values of many changes from where they arrived into arrays or into the rows of a COPY. */
export class SetEncoder {
  readonly #encoder = new RowEncoder();
  readonly #columns: FrameWriter[] = [];

  /** Bind and Execute of a statement whose parameters are arrays. All values of a column are text, or all are binary. */
  writeArrays(
    batch: Batch,
    statement: string,
    sources: readonly ParameterSource[],
    rows: readonly RowChange[],
    binary: boolean,
  ): void {
    while (this.#columns.length < sources.length) this.#columns.push(new FrameWriter());
    const columns = this.#columns;
    for (const [at, { elements }] of sources.entries()) {
      const column = columns[at] as FrameWriter;
      if (binary) beginArray(column, elements?.typeOid ?? 0, rows.length);
      else column.int8(0x7b);
    }
    for (const [row, change] of rows.entries()) {
      this.#encoder.load(change);
      const { bytes } = change;
      for (let at = 0; at < sources.length; at++) {
        const { image, index, elements } = sources[at] as ParameterSource;
        const { kinds, starts, lengths } = image === "new" ? this.#encoder.newImage : this.#encoder.oldImage;
        const column = columns[at] as FrameWriter;
        const kind = kinds[index];
        const start = starts[index] as number;
        const end = start + (lengths[index] as number);
        if (binary) {
          binaryValue(column, kind, bytes, start, end);
          continue;
        }
        if (row > 0) column.int8((elements?.delimiter ?? ",").charCodeAt(0));
        if (kind === COLUMN_NULL) column.bytes(NULL_ELEMENT);
        else if (kind === COLUMN_TEXT) {
          column.int8(QUOTE);
          for (let from = start; from < end; from++) {
            const byte = bytes[from] as number;
            if (byte === QUOTE || byte === BACKSLASH) column.int8(BACKSLASH);
            column.int8(byte);
          }
          column.int8(QUOTE);
        } else throw unexpected(kind);
      }
    }
    batch.startBind(statement, 1);
    batch.format(binary ? BINARY_FORMAT : TEXT_FORMAT);
    batch.startValues(sources.length);
    for (let at = 0; at < sources.length; at++) {
      const column = columns[at] as FrameWriter;
      if (!binary) column.int8(0x7d);
      batch.valueOf(column);
    }
    batch.endBind();
    batch.execute();
  }

  copyHeader(writer: FrameWriter): void {
    writer.bytes(COPY_HEADER);
  }

  /** One row of a COPY into the open CopyData: the columns at these indexes of the new image. */
  copyRow(writer: FrameWriter, change: RowChange, indexes: readonly number[], binary: boolean): void {
    this.#encoder.load(change);
    const { kinds, starts, lengths } = this.#encoder.newImage;
    const { bytes } = change;
    if (binary) writer.int16(indexes.length);
    for (let at = 0; at < indexes.length; at++) {
      const index = indexes[at] as number;
      const kind = kinds[index];
      const start = starts[index] as number;
      const end = start + (lengths[index] as number);
      if (binary) {
        binaryValue(writer, kind, bytes, start, end);
        continue;
      }
      if (at > 0) writer.int8(TAB);
      if (kind === COLUMN_NULL) writer.bytes(NULL_IN_COPY);
      else if (kind === COLUMN_TEXT) copyText(writer, bytes, start, end);
      else throw unexpected(kind);
    }
    if (!binary) writer.int8(NEWLINE);
  }
}

/** https://github.com/postgres/postgres/blob/REL_18_STABLE/src/backend/utils/adt/arrayfuncs.c (array_recv) */
function beginArray(writer: FrameWriter, typeOid: number, elements: number): void {
  writer.int32(1);
  // There may be NULLs.
  writer.int32(1);
  writer.int32(typeOid);
  writer.int32(elements);
  writer.int32(1);
}

/** An element of an array and a column of a COPY are alike. */
function binaryValue(
  writer: FrameWriter,
  kind: number | undefined,
  bytes: Buffer,
  start: number,
  end: number,
): void {
  if (kind === COLUMN_BINARY) {
    writer.int32(end - start);
    writer.lasting(bytes, start, end);
  } else if (kind === COLUMN_NULL) writer.int32(-1);
  else throw unexpected(kind);
}

function copyText(writer: FrameWriter, bytes: Buffer, start: number, end: number): void {
  for (let at = start; at < end; at++) {
    const byte = bytes[at] as number;
    if (byte > CARRIAGE_RETURN && byte !== BACKSLASH) writer.int8(byte);
    else if (byte === NEWLINE) writer.bytes(ESCAPED_NEWLINE);
    else if (byte === TAB) writer.bytes(ESCAPED_TAB);
    else if (byte === CARRIAGE_RETURN) writer.bytes(ESCAPED_RETURN);
    else {
      if (byte === BACKSLASH) writer.int8(BACKSLASH);
      writer.int8(byte);
    }
  }
}

const ESCAPED_NEWLINE = Buffer.from("\\n");
const ESCAPED_TAB = Buffer.from("\\t");
const ESCAPED_RETURN = Buffer.from("\\r");

function unexpected(kind: number | undefined): Error {
  return new Error(`a column value of kind ${kind} where all are of one other kind`);
}
