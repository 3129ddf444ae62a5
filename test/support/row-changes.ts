import { RowChange, type RowChangeKind } from "../../src/change/change.ts";
import type { Relation } from "../../src/change/relation.ts";
import { COLUMN_NULL, COLUMN_TEXT, COLUMN_UNCHANGED } from "../../src/change/tuple.ts";

/** A large value that did not change, and was not sent. */
export const UNSENT = Symbol("unchanged");

export type SentValue = string | null | typeof UNSENT;

/** A row image, with values as text. */
export function tuple(values: readonly SentValue[]): Buffer {
  const parts = [Buffer.from([0, values.length])];
  for (const value of values) {
    if (value === null) parts.push(Buffer.from([COLUMN_NULL]));
    else if (value === UNSENT) parts.push(Buffer.from([COLUMN_UNCHANGED]));
    else {
      const bytes = Buffer.from(value);
      const length = Buffer.alloc(4);
      length.writeInt32BE(bytes.length);
      parts.push(Buffer.from([COLUMN_TEXT]), length, bytes);
    }
  }
  return Buffer.concat(parts);
}

/** A change as the source sends it for a relation whose key is its first column. */
export function rowChange(
  kind: RowChangeKind,
  relation: Relation,
  oldKey: string | undefined,
  values: readonly SentValue[] | undefined,
): RowChange {
  const old =
    oldKey === undefined ? Buffer.alloc(0) : tuple([oldKey, ...relation.columns.slice(1).map(() => null)]);
  const now = values === undefined ? Buffer.alloc(0) : tuple(values);
  return new RowChange(
    kind,
    relation,
    // Something before them, as a message has its header there.
    Buffer.concat([Buffer.from("header"), old, now]),
    oldKey === undefined ? -1 : 6,
    oldKey !== undefined,
    values === undefined ? -1 : 6 + old.length,
    values?.includes(UNSENT) ?? false,
    100,
  );
}
