import type { Change } from "./change.ts";
import type { Lsn } from "./lsn.ts";
import type { Transaction } from "./transaction.ts";

/** A transaction and where its changes end in `Group.changes` (exclusive). */
export interface GroupMember {
  readonly transaction: Transaction;
  readonly end: number;
}

/**
 * The unit of work of the applier. Either whole consecutive transactions, which become one target
 * transaction, or one slice of a transaction that is larger than memory allows.
 */
export interface Group {
  /** In source order, across the members. */
  readonly changes: readonly Change[];
  /** Members in commit order. A slice has exactly one. */
  readonly members: readonly GroupMember[];
  /** False for a slice after the first: its transaction is already open on the target. */
  readonly begins: boolean;
  /** False for a slice before the last: the target transaction stays open. */
  readonly ends: boolean;
  /** Message bytes held by the changes. */
  readonly size: number;
  /**
   * A slice of a transaction that was in progress when its first slice was cut. Others come between its slices. The positions of the
   * transaction are zero but for the slice that ends it.
   */
  readonly inProgress?: true;
  /** What was handed out of a transaction in progress is to be taken back: it has been rolled back. */
  readonly rolledBack?: true;
}

/** What a transport hands out: work, or the news that nothing is left to apply before `lsn`. */
export type Delivery =
  | { readonly kind: "group"; readonly group: Group }
  /** The source has nothing for us up to here; no transaction is open. */
  | {
      readonly kind: "idle";
      readonly lsn: Lsn;
      /** Of the newest transaction without changes for us, if that is where the position is from; microseconds since 1970. */
      readonly commitTime: number | undefined;
    }
  /** Everything that commits before `lsn` has been delivered; the rest waits until it is let go. */
  | { readonly kind: "held"; readonly lsn: Lsn }
  /** `untilLsn` was reached: nothing further will be delivered. */
  | { readonly kind: "end"; readonly lsn: Lsn };
