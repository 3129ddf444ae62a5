import type { Lsn } from "./lsn.ts";

/** A committed source transaction. */
export interface Transaction {
  readonly xid: number;
  /** LSN of the commit record: what orders transactions, and what snapshots are compared with. */
  readonly commitLsn: Lsn;
  /** LSN behind the commit record: the position to acknowledge and to resume from. Zero until the commit arrived. */
  endLsn: Lsn;
  /** Commit time in microseconds since 1970-01-01 UTC. */
  readonly commitTime: number;
}
