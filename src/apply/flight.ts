import { type Change, RowChange } from "../change/change.ts";
import type { Group } from "../change/group.ts";
import type { Lsn } from "../change/lsn.ts";
import type { Relation } from "../change/relation.ts";
import type { Transaction } from "../change/transaction.ts";
import { SQLSTATE } from "../errors/sqlstate.ts";
import { isPassing } from "../postgres/failures.ts";
import type { Batch, BatchResult } from "../wire/batch.ts";
import { type Deferred, deferred } from "../wire/deferred.ts";
import { applyRefused, columnsNotSent, partTruncated } from "./apply-errors.ts";
import { fold, type Step } from "./fold.ts";
import type { Lane } from "./lane.ts";
import { FLUSH_BYTES } from "./set-writer.ts";
import { hasNothingToSet, type TablePlan } from "./table-plan.ts";

/** How a table is written; of relations that are planned. */
export type PlanOf = (relation: Relation) => TablePlan;

/** Of an open target transaction. */
export interface Counts {
  rows: number;
  replays: number;
  conflicts: number;
}

export interface FlightOptions {
  readonly group: Group;
  readonly lane: Lane;
  readonly planOf: PlanOf;
  /** Of the target transaction, with this group. */
  readonly counts: Counts;
  /** The target's position before this group. */
  readonly fromLsn: Lsn;
  /** It is behind another slice that set the savepoint. */
  readonly sliced: boolean;
  /** As net changes, with a statement for many rows; else a statement for each change, in source order. */
  readonly net: boolean;
  /** Its COMMIT goes with it, and waits for no answer: see `canCommitUnanswered`. */
  readonly unanswered: boolean;
  /** Number by which a flight in another session waits for the end of the transaction; undefined when none will. */
  readonly turn: number | undefined;
}

/** The answer to a COMMIT, and its index there. */
export interface Committed {
  readonly result: BatchResult;
  readonly at: number;
}

/**
 * Whether a group can be committed in the flight that writes it: all its statements fail by themselves when they do not affect their
 * rows. Those that begin with WITH cannot.
 */
export function canCommitUnanswered({ begins, ends, changes }: Group, planOf: PlanOf): boolean {
  return (
    begins &&
    ends &&
    changes.every((change) => change instanceof RowChange && !hasNothingToSet(planOf(change.relation)))
  );
}

/** One group on its way to the target: all its statements, sent without waiting for answers. */
export class Flight {
  readonly options: FlightOptions;
  /** All of it has been handed over. */
  readonly sent: Promise<void>;
  readonly #batch: Batch;
  readonly #answer: Promise<BatchResult>;
  /** Its statements are known, if not all sent. */
  readonly #encoded: Deferred<void> = deferred<void>();
  readonly #commitSent: Deferred<void> = deferred<void>();
  /** What each Execute must affect: rows, or -1 for any number. */
  readonly #expected: number[] = [];
  /** COMMIT is among the statements. */
  #commits: boolean;
  #committed: Promise<Committed> | undefined;
  #answered = false;
  #abandoned = false;

  /** @param behind the one in front of it in its session: nothing is sent before its COMMIT. Not kept, or each would keep all before. */
  constructor(options: FlightOptions, behind?: Flight) {
    this.options = options;
    this.#commits = options.unanswered;
    const batch = options.lane.batch();
    this.#batch = behind === undefined ? batch : batch.hold();
    const written = this.#write(behind?.encoded);
    this.sent = written.then(() => undefined);
    this.#answer = written.then(({ answer }) => answer);
    // Whoever waits for them comes later, or not at all.
    this.sent.catch(() => this.#encoded.resolve());
    this.#answer
      .catch(() => {})
      .finally(() => {
        this.#answered = true;
      });
    void behind?.commitSent.then(() => this.release());
  }

  get group(): Group {
    return this.options.group;
  }

  get lane(): Lane {
    return this.options.lane;
  }

  get counts(): Counts {
    return this.options.counts;
  }

  /** The target's position when this group is committed. */
  get toLsn(): Lsn {
    return this.group.ends ? lastOf(this.group).endLsn : this.options.fromLsn;
  }

  /** The target has answered, or it failed. */
  get answered(): Promise<unknown> {
    return this.#answer;
  }

  get isAnswered(): boolean {
    return this.#answered;
  }

  /** Everything up to COMMIT has been handed over: the next transaction of the session may be too. */
  get commitSent(): Promise<void> {
    return this.#commitSent.promise;
  }

  get encoded(): Promise<void> {
    return this.#encoded.promise;
  }

  /** Lets what has been written go to the target. */
  release(): void {
    this.#batch.release();
  }

  get isAbandoned(): boolean {
    return this.#abandoned;
  }

  /** Resolves when nothing more of it is sent or answered: one that is held is not sent at all. */
  async abandon(): Promise<void> {
    this.#abandoned = true;
    if (this.#batch.held) this.#batch.abandon();
    await this.#answer.catch(() => {});
  }

  /** A statement of it has failed: whatever is behind it in its session fails as well. */
  get hasFailed(): boolean {
    return this.#batch.failed;
  }

  /**
   * False when it must be done otherwise; the transaction is then to be rolled back to before the group. What is wrong with the position
   * is seen by `commit`.
   */
  async succeeded(): Promise<boolean> {
    const { error, affected, failedAt } = await this.#answer;
    if (this.#commits && failedAt === this.#expected.length - 2) return true;
    if (error === undefined) return this.#expected.every((count, at) => count < 0 || affected[at] === count);
    // A deadlock may be with one of our own sessions.
    if (isPassing(error.code) && error.code !== SQLSTATE.deadlockDetected)
      throw applyRefused(error, undefined, undefined, "progress");
    return false;
  }

  /** It was written otherwise, and has still to be committed. */
  rewritten(): void {
    this.#commits = false;
  }

  /** Sends what commits it, to be done when the transaction of the turn `after` has ended, unless that has been sent. */
  commit(after?: number): Promise<Committed> {
    this.#committed ??= this.#commits
      ? this.#answer.then((result) => ({ result, at: this.#expected.length - 1 }))
      : this.#commit(after);
    this.#committed.catch(() => {});
    return this.#committed;
  }

  async #commit(after: number | undefined): Promise<Committed> {
    const { progress } = this.lane;
    const batch = this.lane.batch();
    if (after !== undefined) progress.awaitTurn(batch, after);
    this.#writeCommit(batch);
    const answer = batch.send();
    this.#commitSent.resolve();
    return { result: await answer, at: after === undefined ? 1 : 2 };
  }

  #writeCommit(batch: Batch): void {
    const { group, fromLsn, counts } = this.options;
    const { endLsn, commitTime } = lastOf(group);
    const transactions = group.members.length;
    this.lane.progress.commit(batch, { fromLsn, lsn: endLsn, commitTime, transactions, counts });
  }

  /** In an object: a promise of a promise would wait for the answer too. */
  async #write(encodedBefore: Promise<void> | undefined): Promise<{ answer: Promise<BatchResult> }> {
    const { group, lane, sliced, net, planOf, turn } = this.options;
    const batch = this.#batch;
    // What is prepared in a session is prepared in the order in which it is sent.
    await encodedBefore;
    const steps = net ? fold(group, planOf) : undefined;
    // Begins the target transaction, or a slice of it behind a savepoint. The savepoint before is released: each that is open
    // costs the server memory, and a look-up of every row version in all of them. What is in progress is only taken back whole.
    const savepoint = group.inProgress ? [] : sliced ? ["release", "savepoint"] : ["savepoint"];
    const bounds = group.begins ? ["begin"] : savepoint;
    for (const statement of bounds) {
      batch.bindExecute(statement, []);
      this.#expected.push(-1);
    }
    if (turn !== undefined) {
      lane.progress.takeTurn(batch, turn);
      this.#expected.push(-1);
    }
    if (steps === undefined) await this.#writeChanges();
    else await this.#writeFolded(steps);
    if (this.#commits && !batch.failed) {
      this.#writeCommit(batch);
      this.#expected.push(1, -1);
    }
    this.#encoded.resolve();
    await batch.released();
    const answer = batch.send();
    if (this.#commits) this.#commitSent.resolve();
    return { answer };
  }

  async #writeChanges(): Promise<void> {
    const { members, changes } = this.group;
    let index = 0;
    for (const { transaction, end } of members) {
      for (; index < end && !this.#batch.failed; index++) {
        this.#change(changes[index] as Change, transaction);
        if (this.#batch.buffered >= FLUSH_BYTES) await this.#batch.flush();
      }
    }
  }

  async #writeFolded(steps: readonly Step[]): Promise<void> {
    const batch = this.#batch;
    for (const step of steps) {
      if (batch.failed) return;
      if (step.kind === "net") await this.lane.sets.write(batch, step.tables, this.#expected, this.#commits);
      else {
        this.#change(step.change, step.transaction);
        if (batch.buffered >= FLUSH_BYTES) await batch.flush();
      }
    }
  }

  #change(change: Change, transaction: Transaction): void {
    const { planOf } = this.options;
    const { rows } = this.lane;
    if (change instanceof RowChange) {
      const plan = planOf(change.relation);
      if (!rows.row(this.#batch, plan, change, this.#commits)) throw columnsNotSent(plan, transaction);
      this.#expected.push(1);
      return;
    }
    const changed = change.relations.map(planOf);
    if (!rows.truncate(this.#batch, changed, change)) throw partTruncated(changed, transaction);
    this.#expected.push(-1);
  }
}

function lastOf(group: Group): Transaction {
  return (group.members.at(-1) as Group["members"][number]).transaction;
}

export function rowsOf({ changes }: Group): number {
  let rows = 0;
  for (const change of changes) if (change instanceof RowChange) rows++;
  return rows;
}
