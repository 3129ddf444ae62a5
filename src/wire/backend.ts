import type { ServerErrorFields } from "../errors/server-error.ts";
import { type FrameReader, readInt32 } from "./frames.ts";

/** Type bytes of the messages that a server sends. https://www.postgresql.org/docs/current/protocol-message-formats.html */
export const BIND_COMPLETE = 0x32;
export const CLOSE_COMPLETE = 0x33;
export const COMMAND_COMPLETE = 0x43;
export const COPY_BOTH_RESPONSE = 0x57;
export const COPY_DATA = 0x64;
export const COPY_DONE = 0x63;
export const COPY_IN_RESPONSE = 0x47;
export const COPY_OUT_RESPONSE = 0x48;
export const DATA_ROW = 0x44;
export const EMPTY_QUERY_RESPONSE = 0x49;
export const ERROR_RESPONSE = 0x45;
export const NOTICE_RESPONSE = 0x4e;
export const NOTIFICATION_RESPONSE = 0x41;
export const PARAMETER_STATUS = 0x53;
export const PARSE_COMPLETE = 0x31;
export const READY_FOR_QUERY = 0x5a;
export const ROW_DESCRIPTION = 0x54;

export type TransactionStatus = "I" | "T" | "E";
/** The columns of one row in text form. */
export type TextRow = readonly (string | null)[];

/** https://www.postgresql.org/docs/current/protocol-error-fields.html */
const FIELD_NAMES: Readonly<Record<string, keyof ServerErrorFields>> = {
  C: "code",
  M: "message",
  D: "detail",
  H: "hint",
  s: "schema",
  t: "table",
  c: "column",
  n: "constraint",
  W: "where",
  R: "routine",
};

/** ErrorResponse or NoticeResponse. `severity` is the form that is never translated, which 9.6 and later send. */
export function readErrorFields(frame: FrameReader): ServerErrorFields {
  const fields: Partial<Record<keyof ServerErrorFields, string>> = {};
  let at = frame.start;
  let translated: string | undefined;
  for (;;) {
    if (at >= frame.end) throw frame.violation("has no terminator");
    const type = String.fromCharCode(frame.bytes[at++] as number);
    if (type === "\0") break;
    const zero = findZero(frame, at);
    const value = frame.bytes.toString("utf8", at, zero);
    at = zero + 1;
    if (type === "S") translated = value;
    else if (type === "V") fields.severity = value;
    else {
      const name = FIELD_NAMES[type];
      if (name !== undefined) fields[name] = value;
    }
  }
  return {
    ...fields,
    severity: fields.severity ?? translated ?? "ERROR",
    code: fields.code ?? "XX000",
    message: fields.message ?? "",
  };
}

/** ParameterStatus: name and value. */
export function readParameterStatus(frame: FrameReader): readonly [string, string] {
  const nameEnd = findZero(frame, frame.start);
  const valueEnd = findZero(frame, nameEnd + 1);
  return [
    frame.bytes.toString("utf8", frame.start, nameEnd),
    frame.bytes.toString("utf8", nameEnd + 1, valueEnd),
  ];
}

/** ReadyForQuery: idle, in a transaction, or in a failed one. */
export function readTransactionStatus(frame: FrameReader): TransactionStatus {
  if (frame.end - frame.start === 1) {
    const status = String.fromCharCode(frame.bytes[frame.start] as number);
    if (status === "I" || status === "T" || status === "E") return status;
  }
  throw frame.violation("has no transaction status");
}

/** CommandComplete: the tag, such as `UPDATE 3` or `COMMIT`. */
export function readTag(frame: FrameReader): string {
  return frame.bytes.toString("latin1", frame.start, findZero(frame, frame.start));
}

/** CommandComplete: the row count at the end of the tag, -1 for a tag without one; makes no string. */
export function readTagCount(frame: FrameReader): number {
  const { bytes, start } = frame;
  let count = 0;
  let scale = 1;
  for (let at = frame.end - 2; at > start; at--) {
    const byte = bytes[at] as number;
    if (byte === 0x20) return scale === 1 ? -1 : count;
    if (byte < 0x30 || byte > 0x39) return -1;
    count += (byte - 0x30) * scale;
    scale *= 10;
  }
  return -1;
}

/** DataRow whose columns came in text format. */
export function readTextRow(frame: FrameReader): TextRow {
  const { bytes, end } = frame;
  let at = frame.start + 2;
  if (at > end) throw frame.violation("is too short");
  const columns = bytes.readUInt16BE(frame.start);
  const row: (string | null)[] = [];
  for (let column = 0; column < columns; column++) {
    if (at + 4 > end) throw frame.violation("is too short");
    const length = readInt32(bytes, at);
    at += 4;
    if (length < 0) {
      row.push(null);
    } else {
      if (length > end - at) throw frame.violation("has a value that is longer than the message");
      row.push(bytes.toString("utf8", at, at + length));
      at += length;
    }
  }
  if (at !== end) throw frame.violation("is too long");
  return row;
}

/** RowDescription: the column names. */
export function readFieldNames(frame: FrameReader): readonly string[] {
  if (frame.start + 2 > frame.end) throw frame.violation("is too short");
  const count = frame.bytes.readUInt16BE(frame.start);
  const names: string[] = [];
  let at = frame.start + 2;
  for (let field = 0; field < count; field++) {
    const zero = findZero(frame, at);
    names.push(frame.bytes.toString("utf8", at, zero));
    // table oid, column number, type oid, type length, type modifier, format
    at = zero + 1 + 18;
  }
  if (at !== frame.end) throw frame.violation("has a wrong length");
  return names;
}

function findZero(frame: FrameReader, from: number): number {
  const at = frame.bytes.indexOf(0, from);
  if (from >= frame.end || at < 0 || at >= frame.end) throw frame.violation("has a string without an end");
  return at;
}
