import type { Change } from "./change.ts";
import type { Lsn } from "./lsn.ts";
import type { Transaction } from "./transaction.ts";

/**
 * Where a capture delivers committed transactions, in commit order. Calls never wait: a sink that has
 * enough says so by `full`, and the capture stops reading from the source until `whenRoom` resolves.
 */
export interface ChangeSink {
  begin(transaction: Transaction): void;
  change(change: Change): void;
  /** `transaction.endLsn` is set. */
  commit(transaction: Transaction): void;
  /** The changes from here to `streamStop` are of a transaction in progress, which has not committed. */
  streamStart(xid: number): void;
  streamStop(): void;
  /** A transaction that was in progress has committed, behind all that were delivered before. */
  streamCommit(transaction: Transaction): void;
  /** A transaction that was in progress has been rolled back. Throws ERS-510 when it is a part of it, which `subxid` names. */
  streamAbort(xid: number, subxid: number): void;
  /** Everything up to `lsn` has been delivered and no transaction is open. */
  idle(lsn: Lsn): void;
  /** End of the last whole transaction that was delivered; zero for none. */
  readonly completeLsn: Lsn;
  /** Forgets the transaction that is open. False, and nothing happens, when part of it, or of one in progress, has been handed on. */
  cut(): boolean;
  readonly mayCut: boolean;
  readonly full: boolean;
  whenRoom(): Promise<void>;
}
