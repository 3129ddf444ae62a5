import type { Change } from "../change/change.ts";
import type { Delivery, Group, GroupMember } from "../change/group.ts";
import { type Lsn, ZERO_LSN } from "../change/lsn.ts";
import type { ChangeSink } from "../change/sink.ts";
import type { Transaction } from "../change/transaction.ts";
import { mustCommitFirst } from "../errors/must-commit-first.ts";

export interface MemoryTransportOptions {
  /** `full` from here on, in message bytes. */
  readonly capacityBytes: number;
  /** A group closes when it has this many transactions or bytes. */
  readonly groupTransactions: number;
  readonly groupBytes: number;
  /** A group may gather for so long, in milliseconds, before it is taken. */
  readonly groupDelayMs?: number;
  /** Deliver a transaction only when its commit is so long ago, in milliseconds. */
  readonly delayMs?: number;
  /** Deliver only transactions that commit before it, then `end`. */
  readonly untilLsn?: Lsn | undefined;
}

/** What a change costs besides its bytes: the object itself and its place in two arrays. */
const CHANGE_OVERHEAD = 100;

/** A transaction in progress: what has come since its last slice was cut. */
interface InProgress {
  readonly xid: number;
  changes: Change[];
  bytes: number;
  /** A slice has been cut. */
  sliced: boolean;
}

/**
 * Carries transactions from capture to apply inside one process. Whole transactions gather into a group
 * until the applier takes it: one when it is idle, all that arrived meanwhile when it is busy. A transaction
 * that outgrows a group is cut into slices as it arrives, so memory stays bounded whatever its size. So is one in progress, whose
 * slices come between groups of others.
 */
export class MemoryTransport implements ChangeSink {
  readonly #options: MemoryTransportOptions;
  /** Closed groups and slices, oldest first. */
  readonly #ready: Group[] = [];
  /** The group that still grows. */
  #changes: Change[] = [];
  #members: GroupMember[] = [];
  #groupBytes = 0;
  /** performance.now() when the group got its first member. */
  #groupSinceMs = 0;
  /** The transaction that has begun and not committed. */
  #open: Change[] = [];
  #openBytes = 0;
  #openTransaction: Transaction | undefined;
  #openSliced = false;

  readonly #inProgress = new Map<number, InProgress>();
  /** The one whose changes come. */
  #coming: InProgress | undefined;

  #completeLsn: Lsn = ZERO_LSN;
  #heldBytes = 0;
  #idleLsn: Lsn = ZERO_LSN;
  #idleCommitTime: number | undefined;
  #deliveredIdleLsn: Lsn = ZERO_LSN;
  #deliveredHoldLsn: Lsn | undefined;
  #midTransaction = false;
  /** What the applier works on, oldest first. */
  readonly #taken: Group[] = [];
  #untilLsn: Lsn | undefined;
  #atEnd = false;
  #failure: Error | undefined;
  #wakeTaker: (() => void) | undefined;
  #wakeAhead: (() => void) | undefined;
  #roomWaiters: (() => void)[] = [];

  /** Small enough that others come while one is being written; and what is open, which cannot be taken, never fills the transport. */
  readonly #sliceBytes: number;

  constructor(options: MemoryTransportOptions) {
    this.#options = options;
    this.#sliceBytes = Math.min(options.groupBytes, options.capacityBytes / 4);
    this.#untilLsn = options.untilLsn;
  }

  /** Bytes that are held, with overhead. */
  get heldBytes(): number {
    return this.#heldBytes;
  }

  get completeLsn(): Lsn {
    return this.#completeLsn;
  }

  get mayCut(): boolean {
    if (this.#inProgress.size > 0) return false;
    // A first slice that is still here has all others behind it.
    return !this.#openSliced || this.#ready.some((group) => group.begins && !group.ends);
  }

  cut(): boolean {
    if (!this.mayCut) return false;
    while (this.#ready.at(-1)?.ends === false) this.#heldBytes -= this.#ready.pop()?.size ?? 0;
    this.#heldBytes -= this.#openBytes;
    this.#resetOpen();
    this.#openTransaction = undefined;
    this.#openSliced = false;
    this.#makeRoom();
    return true;
  }

  /** True when nothing waits to be applied. */
  get empty(): boolean {
    return this.#heldBytes === 0 && this.#ready.length === 0;
  }

  get full(): boolean {
    return this.#heldBytes >= this.#options.capacityBytes;
  }

  whenRoom(): Promise<void> {
    if (!this.full) return Promise.resolve();
    return new Promise((resolve) => this.#roomWaiters.push(resolve));
  }

  begin(transaction: Transaction): void {
    if (this.#untilLsn !== undefined && transaction.commitLsn >= this.#untilLsn) this.#atEnd = true;
    this.#openTransaction = transaction;
    this.#openSliced = false;
    if (this.#atEnd) this.wake();
  }

  change(change: Change): void {
    if (this.#atEnd) return;
    const bytes = change.size + CHANGE_OVERHEAD;
    this.#heldBytes += bytes;
    const coming = this.#coming;
    if (coming !== undefined) {
      coming.changes.push(change);
      coming.bytes += bytes;
      if (coming.bytes >= this.#sliceBytes) this.#cutInProgress(coming);
      return;
    }
    this.#open.push(change);
    this.#openBytes += bytes;
    if (this.#openBytes >= this.#sliceBytes) this.#cutSlice(false);
  }

  commit(transaction: Transaction): void {
    this.#openTransaction = undefined;
    this.#completeLsn = transaction.endLsn;
    if (this.#atEnd) return;
    if (this.#openSliced) {
      this.#openTransaction = transaction;
      this.#cutSlice(true);
      this.#openTransaction = undefined;
      this.#openSliced = false;
    } else if (this.#open.length === 0) {
      // Before 15 the source also sends transactions that changed nothing of ours.
      this.#passed(transaction);
    } else {
      if (this.#members.length === 0) {
        this.#groupSinceMs = performance.now();
        this.#wakeAhead?.();
      }
      if (this.#changes.length === 0) this.#changes = this.#open;
      else for (const change of this.#open) this.#changes.push(change);
      this.#members.push({ transaction, end: this.#changes.length });
      this.#groupBytes += this.#openBytes;
      this.#resetOpen();
      if (
        this.#groupBytes >= this.#options.groupBytes ||
        this.#members.length >= this.#options.groupTransactions
      )
        this.#closeGroup();
    }
    this.wake();
  }

  streamStart(xid: number): void {
    let transaction = this.#inProgress.get(xid);
    if (transaction === undefined) {
      transaction = { xid, changes: [], bytes: 0, sliced: false };
      this.#inProgress.set(xid, transaction);
    }
    this.#coming = transaction;
  }

  /** Nobody knows when more comes: what is here need not wait for it. */
  streamStop(): void {
    const transaction = this.#coming;
    this.#coming = undefined;
    if (transaction !== undefined && transaction.bytes > 0) this.#cutInProgress(transaction);
  }

  streamCommit(transaction: Transaction): void {
    const { sliced = false } = this.#inProgress.get(transaction.xid) ?? {};
    this.#inProgress.delete(transaction.xid);
    this.#completeLsn = transaction.endLsn;
    if (this.#untilLsn !== undefined && transaction.commitLsn >= this.#untilLsn) this.#atEnd = true;
    else if (sliced) this.#enqueueInProgress({ ...sliceOf(transaction, LAST), inProgress: true });
    else this.#passed(transaction);
    this.wake();
  }

  streamAbort(xid: number, subxid: number): void {
    const sliced = this.#inProgress.get(xid)?.sliced === true;
    if (subxid === xid) this.#inProgress.delete(xid);
    if (!sliced) return;
    if (subxid !== xid) throw mustCommitFirst(xid, "a part of it was rolled back");
    this.#rollBack(xid);
    this.wake();
  }

  idle(lsn: Lsn): void {
    if (this.#openTransaction !== undefined || this.#atEnd) return;
    if (lsn > this.#idleLsn) {
      this.#idleLsn = lsn;
      this.#idleCommitTime = undefined;
    }
    if (this.#untilLsn !== undefined && lsn >= this.#untilLsn) this.#atEnd = true;
    this.wake();
  }

  /**
   * Waits at most `waitMs` for the next delivery; undefined when there was none. Nothing that commits at or after
   * `holdLsn` is delivered: `held` says, once, that everything before it has been. A transaction of which slices were
   * taken before stays open meanwhile.
   */
  async take(waitMs: number, holdLsn?: Lsn): Promise<Delivery | undefined> {
    if (holdLsn === undefined) this.#deliveredHoldLsn = undefined;
    const now = this.#next(holdLsn);
    if (now !== undefined) return now;
    // Whatever comes meanwhile, what waits for its time may be due before.
    await this.sleep(Math.min(waitMs, this.#dueInMs()));
    return this.#next(holdLsn);
  }

  /** Until what is here may be delivered for its age. */
  #dueInMs(): number {
    const { groupDelayMs = 0, delayMs = 0 } = this.#options;
    const first = this.#ready[0]?.members[0] ?? this.#members[0];
    if (first === undefined) return Number.POSITIVE_INFINITY;
    const ageMs = Date.now() - first.transaction.commitTime / 1000;
    const gatheredMs = performance.now() - this.#groupSinceMs;
    const gathers = this.#ready.length === 0 ? groupDelayMs - gatheredMs : 0;
    return Math.max(1, Math.ceil(gathers), delayMs === 0 ? 0 : Math.ceil(delayMs - ageMs));
  }

  /**
   * A group to be prepared while the one before is being written: one that cannot grow any more, or has grown for `growMs`. Waits for
   * it until `signal`. Undefined when there is none, or when a slice of a transaction in progress is next.
   */
  async takeAhead(signal: Promise<unknown>, growMs = Number.POSITIVE_INFINITY): Promise<Group | undefined> {
    const { groupDelayMs = 0 } = this.#options;
    if (!(await this.#isGrown(signal, Math.max(growMs, groupDelayMs)))) return undefined;
    if (this.#ready[0]?.inProgress) return undefined;
    const group = this.#takeGroup(undefined);
    return group === undefined ? undefined : this.#given(group);
  }

  async #isGrown(signal: Promise<unknown>, growMs: number): Promise<boolean> {
    let over = false;
    const end = (): void => {
      over = true;
      this.#wakeAhead?.();
    };
    void signal.then(end, end);
    const isGrown = (): boolean => this.#ready.length > 0 || this.#grewMs >= growMs;
    while (!over && !isGrown()) {
      let timer: NodeJS.Timeout | undefined;
      await new Promise<void>((resolve) => {
        this.#wakeAhead = resolve;
        const leftMs = growMs - this.#grewMs;
        if (this.#members.length > 0 && Number.isFinite(leftMs)) timer = setTimeout(resolve, leftMs);
      });
      clearTimeout(timer);
      this.#wakeAhead = undefined;
    }
    return isGrown();
  }

  /** How long the group has grown; 0 while nothing is in it. */
  get #grewMs(): number {
    return this.#members.length === 0 ? 0 : performance.now() - this.#groupSinceMs;
  }

  /** Waits for `wake`, news or the time to pass. */
  async sleep(waitMs: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.#wakeTaker = resolve;
      timer = setTimeout(resolve, waitMs);
    });
    clearTimeout(timer);
    this.#wakeTaker = undefined;
  }

  /** Throws what `fail` was told; for whoever does not take for a while. */
  throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Commit time of the oldest transaction that is here and not released, in microseconds since 1970; undefined without one. */
  get oldestCommitTime(): number | undefined {
    const group = this.#taken.find(hasCommitted) ?? this.#ready.find(hasCommitted);
    return (
      (group?.members[0] ?? this.#members[0])?.transaction.commitTime ?? this.#openTransaction?.commitTime
    );
  }

  /** Ends a `take` or `sleep` that waits. */
  wake(): void {
    this.#wakeTaker?.();
  }

  /** True while the last group taken was a slice whose transaction goes on. */
  get midTransaction(): boolean {
    return this.#midTransaction;
  }

  /** The applier is done with it: its memory counts no longer. */
  release(group: Group): void {
    this.#taken.splice(0, this.#taken.indexOf(group) + 1);
    this.#heldBytes -= group.size;
    this.#makeRoom();
  }

  #makeRoom(): void {
    if (this.full) return;
    const waiters = this.#roomWaiters;
    this.#roomWaiters = [];
    for (const resolve of waiters) resolve();
  }

  /** What is complete may still be taken; then `take` rejects. */
  fail(error: Error): void {
    this.#failure ??= error;
    this.wake();
  }

  #next(holdLsn: Lsn | undefined): Delivery | undefined {
    const group = this.#takeGroup(holdLsn);
    if (group !== undefined) return { kind: "group", group: this.#given(group) };
    if (this.#atEnd && this.#ready.length === 0) return { kind: "end", lsn: this.#untilLsn as Lsn };
    this.throwIfFailed();
    if (holdLsn !== undefined && this.#reached(holdLsn)) {
      if (this.#deliveredHoldLsn === holdLsn) return undefined;
      this.#deliveredHoldLsn = holdLsn;
      return { kind: "held", lsn: holdLsn };
    }
    // What waits for its time comes before.
    const nothing = this.#ready.length === 0 && this.#members.length === 0;
    if (nothing && this.#idleLsn > this.#deliveredIdleLsn && this.#openTransaction === undefined) {
      this.#deliveredIdleLsn = this.#idleLsn;
      return { kind: "idle", lsn: this.#idleLsn, commitTime: this.#idleCommitTime };
    }
    return undefined;
  }

  #given(group: Group): Group {
    if (!group.inProgress) this.#midTransaction = !group.ends;
    this.#taken.push(group);
    return group;
  }

  #takeGroup(holdLsn: Lsn | undefined): Group | undefined {
    const { groupDelayMs = 0, delayMs = 0 } = this.#options;
    const gathers = this.#grewMs < groupDelayMs;
    if (this.#ready.length === 0 && (!gathers || this.#atEnd || holdLsn !== undefined)) this.#closeGroup();
    const group = this.#ready[0];
    if (group === undefined) return undefined;
    // With nothing in front of the hold any more, what is in progress commits behind it.
    if (holdLsn !== undefined && group.inProgress && !group.ends && this.#reached(holdLsn)) return undefined;
    if (holdLsn === undefined && delayMs === 0) return this.#ready.shift();
    // What has begun goes on.
    const latest = group.begins && delayMs > 0 ? (Date.now() - delayMs) * 1000 : Number.POSITIVE_INFINITY;
    const cut = group.members.findIndex(
      ({ transaction }) =>
        (holdLsn !== undefined && transaction.commitLsn >= holdLsn) || transaction.commitTime > latest,
    );
    if (cut === 0) return undefined;
    if (cut < 0) return this.#ready.shift();
    const [before, behind] = splitGroup(group, cut);
    this.#ready[0] = behind;
    return before;
  }

  /** Everything that commits before `lsn` has been taken. */
  #reached(lsn: Lsn): boolean {
    const next = this.#ready.find(hasCommitted)?.members[0];
    if (next !== undefined) return next.transaction.commitLsn >= lsn;
    return (
      this.#idleLsn >= lsn || (this.#openTransaction !== undefined && this.#openTransaction.commitLsn >= lsn)
    );
  }

  /** News of a position, not work. */
  #passed({ endLsn, commitTime }: Transaction): void {
    this.#idleLsn = endLsn;
    this.#idleCommitTime = commitTime;
  }

  #cutInProgress(transaction: InProgress): void {
    const { xid, changes, bytes, sliced } = transaction;
    const slice = sliceOf(unknownEnd(xid), { changes, size: bytes, begins: !sliced, ends: false });
    this.#enqueueInProgress({ ...slice, inProgress: true });
    transaction.changes = [];
    transaction.bytes = 0;
    transaction.sliced = true;
    this.wake();
  }

  /** Drops what is still here of a transaction in progress, and has the rest of it taken back. */
  #rollBack(xid: number): void {
    for (const group of this.#ready.splice(0)) {
      if (group.inProgress && group.members[0]?.transaction.xid === xid) this.#heldBytes -= group.size;
      else this.#ready.push(group);
    }
    this.#enqueueInProgress({ ...sliceOf(unknownEnd(xid), LAST), inProgress: true, rolledBack: true });
    this.#makeRoom();
  }

  /** Behind all that has committed before it came. */
  #enqueueInProgress(slice: Group): void {
    this.#closeGroup();
    this.#enqueue(slice);
  }

  #enqueue(group: Group): void {
    this.#ready.push(group);
    this.#wakeAhead?.();
  }

  #closeGroup(): void {
    if (this.#members.length === 0) return;
    this.#enqueue({
      changes: this.#changes,
      members: this.#members,
      begins: true,
      ends: true,
      size: this.#groupBytes,
    });
    this.#changes = [];
    this.#members = [];
    this.#groupBytes = 0;
  }

  #cutSlice(ends: boolean): void {
    this.#closeGroup();
    const part = { changes: this.#open, size: this.#openBytes, begins: !this.#openSliced, ends };
    this.#enqueue(sliceOf(this.#openTransaction as Transaction, part));
    this.#openSliced = true;
    this.#resetOpen();
    this.wake();
  }

  #resetOpen(): void {
    this.#open = [];
    this.#openBytes = 0;
  }
}

/** Parts whole transactions: the first `count` members from the rest. */
function splitGroup(group: Group, count: number): [Group, Group] {
  const at = group.members[count - 1]?.end ?? 0;
  const part = (changes: readonly Change[], members: readonly GroupMember[]): Group => ({
    changes,
    members,
    begins: true,
    ends: true,
    size: changes.reduce((sum, change) => sum + change.size + CHANGE_OVERHEAD, 0),
  });
  return [
    part(group.changes.slice(0, at), group.members.slice(0, count)),
    part(
      group.changes.slice(at),
      group.members.slice(count).map(({ transaction, end }) => ({ transaction, end: end - at })),
    ),
  ];
}

type Part = Pick<Group, "changes" | "size" | "begins" | "ends">;

/** Behind the last changes. */
const LAST: Part = { changes: [], size: 0, begins: false, ends: true };

function sliceOf(transaction: Transaction, part: Part): Group {
  return { ...part, members: [{ transaction, end: part.changes.length }] };
}

function unknownEnd(xid: number): Transaction {
  return { xid, commitLsn: ZERO_LSN, endLsn: ZERO_LSN, commitTime: 0 };
}

function hasCommitted({ members }: Group): boolean {
  return members[0]?.transaction.commitLsn !== ZERO_LSN;
}
