import type { Relation } from "./relation.ts";

export type RowChangeKind = "insert" | "update" | "delete";

/**
 * One changed row. The row images stay where they arrived: `bytes` is the memory that holds the message, and
 * the images are found at offsets in it, in the TupleData layout (see `tuple.ts`). Nothing is decoded until
 * asked for.
 */
export class RowChange {
  readonly kind: RowChangeKind;
  readonly relation: Relation;
  readonly bytes: Buffer;
  /** Offset of the old row image, -1 when the source sent none (insert; update that left the key alone). */
  readonly oldStart: number;
  /** True when only the identity columns of the old image are filled (`K`), false for the full old row (`O`). */
  readonly oldIsKey: boolean;
  /** Offset of the new row image, -1 for a delete. */
  readonly newStart: number;
  /** The new row image lacks a column: a large value that did not change is not sent. */
  readonly lacksColumns: boolean;
  /** Length of the message in bytes: what this change counts for in memory bounds. */
  readonly size: number;

  constructor(
    kind: RowChangeKind,
    relation: Relation,
    bytes: Buffer,
    oldStart: number,
    oldIsKey: boolean,
    newStart: number,
    lacksColumns: boolean,
    size: number,
  ) {
    this.kind = kind;
    this.relation = relation;
    this.bytes = bytes;
    this.oldStart = oldStart;
    this.oldIsKey = oldIsKey;
    this.newStart = newStart;
    this.lacksColumns = lacksColumns;
    this.size = size;
  }
}

/** TRUNCATE of one or more tables in one statement. */
export class TruncateChange {
  readonly kind = "truncate";
  readonly relations: readonly Relation[];
  readonly cascade: boolean;
  readonly restartIdentity: boolean;
  readonly size: number;
  /**
   * All rows go, but not by a TRUNCATE of the source: whoever reads the target by an older snapshot still sees them. Of one
   * relation.
   */
  readonly asDelete: boolean;

  constructor(
    relations: readonly Relation[],
    cascade: boolean,
    restartIdentity: boolean,
    size: number,
    asDelete = false,
  ) {
    this.relations = relations;
    this.cascade = cascade;
    this.restartIdentity = restartIdentity;
    this.size = size;
    this.asDelete = asDelete;
  }
}

export type Change = RowChange | TruncateChange;
