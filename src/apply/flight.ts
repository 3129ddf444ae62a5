import { type Change, RowChange } from "../change/change.ts";
import type { Group } from "../change/group.ts";
import type { Lsn } from "../change/lsn.ts";
import type { Relation } from "../change/relation.ts";
import type { Transaction } from "../change/transaction.ts";
import type { ServerError } from "../errors/server-error.ts";
import { isPassing } from "../postgres/failures.ts";
import type { Batch, BatchResult } from "../wire/batch.ts";
import { applyRefused, columnsNotSent, partTruncated } from "./apply-errors.ts";
import { type Folded, fold } from "./fold.ts";
import type { Progress } from "./progress.ts";
import type { RowWriter } from "./row-writer.ts";
import { FLUSH_BYTES, type SetWriter } from "./set-writer.ts";
import { hasAlwaysIdentity, type TablePlan } from "./table-plan.ts";

/** What the flights of one session share. */
export interface FlightContext {
  readonly progress: Progress;
  readonly rows: RowWriter;
  readonly sets: SetWriter;
  /** Rejects when a relation of the group cannot be written (ERS-4xx). */
  readonly plan: (group: Group) => Promise<void>;
  readonly planOf: (relation: Relation) => TablePlan;
}

/** Of an open target transaction. */
export interface Counts {
  rows: number;
  replays: number;
  conflicts: number;
}

export interface FlightOptions {
  readonly group: Group;
  /** Of the target transaction, with this group. */
  readonly counts: Counts;
  /** The target's position before this group. */
  readonly fromLsn: Lsn;
  /** It is behind another slice that set the savepoint. */
  readonly sliced: boolean;
  /** As net changes, with a statement for many rows; else a statement for each change, in source order. */
  readonly net: boolean;
}

/** What the target answered to a flight that went well. */
export interface Outcome {
  readonly result: BatchResult;
  /** Index of the COMMIT in it, undefined when the transaction is still open. */
  readonly committed: number | undefined;
}

/** As many changes are committed without waiting for the answer to them. */
const FEW_CHANGES = 20;

/** One group on its way to the target: all its statements, sent without waiting for answers. */
export class Flight {
  readonly options: FlightOptions;
  /** All of it has been handed over. */
  readonly sent: Promise<void>;
  readonly #context: FlightContext;
  readonly #batch: Batch;
  readonly #answer: Promise<BatchResult>;
  /** What each Execute must affect: rows, or -1 for any number. */
  readonly #expected: number[] = [];
  /** COMMIT is among the statements. */
  #commits = false;

  /** A batch that is held keeps it from being sent: see `release`. */
  constructor(context: FlightContext, options: FlightOptions, batch: Batch) {
    this.options = options;
    this.#context = context;
    this.#batch = batch;
    const written = this.#write();
    this.sent = written.then(() => undefined);
    this.#answer = written.then(({ answer }) => answer);
    // Whoever waits for them comes later, or not at all.
    this.sent.catch(() => {});
    this.#answer.catch(() => {});
  }

  get group(): Group {
    return this.options.group;
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

  /** Lets what has been written go to the target. */
  release(): void {
    this.#batch.release();
  }

  /** Ends a flight that was not released. */
  async abandon(): Promise<void> {
    this.#batch.abandon();
    await this.sent.catch(() => {});
  }

  /** Undefined when it must be done otherwise; the transaction is then to be rolled back to before the group. */
  async succeeded(): Promise<Outcome | undefined> {
    const result = await this.#answer;
    if (result.error !== undefined && isPassing(result.error.code)) throw unexpected(result.error);
    if (result.error !== undefined) return undefined;
    if (!this.#expected.every((count, at) => count < 0 || result.affected[at] === count)) return undefined;
    return { result, committed: this.#commits ? this.#expected.length : undefined };
  }

  /**
   * A small group is committed in the same flight: its statements fail by themselves when they do not affect their row. For many
   * rows that would cost more than the answer that need not be waited for.
   */
  #mayCommit(): boolean {
    const { group, net } = this.options;
    const { planOf } = this.#context;
    return (
      group.begins &&
      group.ends &&
      !net &&
      group.changes.length <= FEW_CHANGES &&
      group.changes.every(
        (change) => change instanceof RowChange && !hasAlwaysIdentity(planOf(change.relation)),
      )
    );
  }

  /** In an object: a promise of a promise would wait for the answer too. */
  async #write(): Promise<{ answer: Promise<BatchResult> }> {
    const { group, counts, fromLsn, sliced, net } = this.options;
    const batch = this.#batch;
    const { plan, planOf, progress } = this.#context;
    // Planned before the first byte is sent.
    await plan(group);
    this.#commits = this.#mayCommit();
    const folded = net ? fold(group, planOf) : undefined;
    // Begins the target transaction, or a slice of it behind a savepoint. The savepoint before is released: each that is open
    // costs the server memory, and a look-up of every row version in all of them.
    const bounds = group.begins ? ["begin"] : sliced ? ["release", "savepoint"] : ["savepoint"];
    for (const statement of bounds) {
      batch.bindExecute(statement, []);
      this.#expected.push(-1);
    }
    if (folded === undefined) await this.#writeChanges();
    else await this.#writeFolded(folded);
    if (group.ends && !batch.failed) {
      const { endLsn, commitTime } = lastOf(group);
      progress.write(
        batch,
        { fromLsn, lsn: endLsn, commitTime, transactions: group.members.length, counts },
        this.#commits,
      );
      this.#expected.push(1);
    }
    if (this.#commits && !batch.failed) progress.commit(batch);
    await batch.released();
    return { answer: batch.send() };
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

  async #writeFolded({ steps }: Folded): Promise<void> {
    const batch = this.#batch;
    for (const step of steps) {
      if (batch.failed) return;
      if (step.kind === "net") await this.#context.sets.write(batch, step.tables, this.#expected);
      else {
        this.#change(step.change, step.transaction);
        if (batch.buffered >= FLUSH_BYTES) await batch.flush();
      }
    }
  }

  #change(change: Change, transaction: Transaction): void {
    const { rows, planOf } = this.#context;
    if (change instanceof RowChange) {
      const plan = planOf(change.relation);
      if (!rows.row(this.#batch, plan, change, this.#commits)) throw columnsNotSent(plan, transaction);
      this.#expected.push(1);
      return;
    }
    const plans = change.relations.map(planOf);
    if (!rows.truncate(this.#batch, plans, change)) throw partTruncated(plans, transaction);
    this.#expected.push(-1);
  }
}

export function lastOf(group: Group): Transaction {
  return (group.members.at(-1) as Group["members"][number]).transaction;
}

export function unexpected(error: ServerError): Error {
  return applyRefused(error, undefined, undefined, "progress");
}
