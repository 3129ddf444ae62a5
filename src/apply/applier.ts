import { type Change, RowChange } from "../change/change.ts";
import type { Group } from "../change/group.ts";
import { formatLsn, type Lsn, parseLsn } from "../change/lsn.ts";
import type { Relation } from "../change/relation.ts";
import type { Transaction } from "../change/transaction.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import type { ServerError } from "../errors/server-error.ts";
import type { Batch, BatchResult } from "../wire/batch.ts";
import type { WireConnection } from "../wire/connection.ts";
import { isPassing } from "../postgres/failures.ts";
import { withoutCopied } from "./already-copied.ts";
import { applyRefused, columnsNotSent, partTruncated } from "./apply-errors.ts";
import { type Replay, replayGroup } from "./replay.ts";
import { fold, type Folded } from "./fold.ts";
import { RowWriter } from "./row-writer.ts";
import { FLUSH_BYTES, SetWriter } from "./set-writer.ts";
import type { TablePlan } from "./table-plan.ts";

export type ConflictPolicy = "source-wins" | "stop";

/** Up to where the tables' copies have their changes. */
export interface TableCopies {
  /** Changes of transactions that commit before it came with the table's copy. */
  readonly lsnOf: (relation: Relation) => Lsn;
  /** No table has a later one. */
  readonly newestLsn: Lsn;
}

export interface ApplierOptions {
  /** A session that holds the pipeline's lock. */
  readonly connection: WireConnection;
  readonly pipeline: string;
  /** Position on the target now. */
  readonly progressLsn: Lsn;
  /** Rejects when the relation cannot be written (ERS-4xx). */
  readonly planFor: (relation: Relation) => Promise<TablePlan>;
  readonly copies: TableCopies;
  readonly conflict: ConflictPolicy;
  /** Values arrive in binary form. */
  readonly binary: boolean;
  /**
   * `rows`: a statement for each change, in source order; `sets`: net changes, a statement for many rows; `auto`: what suits the
   * group.
   */
  readonly write: "auto" | "rows" | "sets";
}

/** What a commit on the target means for the source. */
export interface Applied {
  /** Source position that the commit covers. */
  readonly sourceLsn: Lsn;
  /** End of the target's WAL just behind the commit: once flushed, the commit is durable. */
  readonly targetLsn: Lsn;
  /** The target's WAL is durable up to here. */
  readonly targetFlushedLsn: Lsn;
  readonly transactions: number;
  readonly rows: number;
}

/** Groups of fewer changes are written change by change: there is little to fold. */
const FEW_CHANGES = 50;

const SAVEPOINT = "erserver";

/**
 * Writes groups to the target: one target transaction each, the position in the same transaction, all statements
 * sent without waiting for answers. When a statement fails or affects no row, the group is rolled back and
 * replayed change by change, where a conflict can be told from an error.
 */
export class Applier {
  readonly #options: ApplierOptions;
  readonly #writer = new RowWriter();
  readonly #sets: SetWriter;
  /** By the relation as the stream described it: a group may hold changes from before and after an ALTER TABLE. */
  readonly #plans = new WeakMap<Relation, TablePlan>();
  #progressLsn: Lsn;
  #controlPrepared = false;
  /** A savepoint is open. */
  #sliced = false;
  /** Counts of the open target transaction. */
  #rows = 0;
  #replays = 0;
  #conflicts = 0;

  constructor(options: ApplierOptions) {
    this.#options = options;
    this.#progressLsn = options.progressLsn;
    this.#sets = new SetWriter({
      rows: this.#writer,
      binary: options.binary,
      always: options.write === "sets",
    });
  }

  /** The source position that the target has. */
  get progressLsn(): Lsn {
    return this.#progressLsn;
  }

  /**
   * Applies a group, or a slice; resolves when it is committed (for a slice that does not end its transaction:
   * written), with undefined for the latter. Whatever it throws, nothing of the open target transaction remains
   * once the session is closed.
   */
  async apply(delivered: Group): Promise<Applied | undefined> {
    const { copies, planFor } = this.#options;
    const first = delivered.members[0]?.transaction;
    const group =
      first !== undefined && first.commitLsn < copies.newestLsn
        ? withoutCopied(delivered, copies.lsnOf)
        : delivered;
    // Planned before the first byte is sent.
    for (const change of group.changes) {
      if (change instanceof RowChange) {
        if (!this.#plans.has(change.relation))
          this.#plans.set(change.relation, await planFor(change.relation));
      } else {
        for (const relation of change.relations)
          if (!this.#plans.has(relation)) this.#plans.set(relation, await planFor(relation));
      }
    }
    if (group.begins) {
      this.#rows = 0;
      this.#replays = 0;
      this.#conflicts = 0;
    }
    await this.#writeGroup(group);
    return group.ends ? this.#commit(group) : undefined;
  }

  /** The fastest way first; whatever fails on the way is undone. */
  async #writeGroup(group: Group): Promise<void> {
    const rowsBefore = this.#rows;
    const { write } = this.#options;
    const folded =
      write === "sets" || (write === "auto" && group.changes.length >= FEW_CHANGES)
        ? fold(group, this.#planOf)
        : undefined;
    if (await this.#applyTogether(group, folded)) return;
    this.#replays++;
    // What a set objects to may be its order alone, such as two rows that exchange a unique value.
    if (folded !== undefined && (await this.#applyTogether(group, undefined))) return;
    await this.#replay(group, rowsBefore);
  }

  /** Moves the position over WAL that holds nothing for us. */
  async advance(lsn: Lsn): Promise<Applied> {
    if (this.#options.connection.transactionStatus !== "I")
      throw new Error("the position was to be moved in the middle of a transaction");
    this.#rows = 0;
    this.#replays = 0;
    this.#conflicts = 0;
    const batch = this.#batch();
    batch.bindExecute("begin", []);
    this.#writeProgress(batch, lsn, undefined, 0);
    const result = await batch.send();
    if (result.error !== undefined) throw this.#unexpected(result);
    this.#requireProgress(result, 1);
    return this.#commitAt(lsn, 0);
  }

  /** How far the target's WAL is durable. */
  async flushedLsn(): Promise<Lsn> {
    const [result] = await this.#options.connection.query("select pg_catalog.pg_current_wal_flush_lsn()");
    return parseLsn(result?.rows[0]?.[0] ?? "");
  }

  readonly #planOf = (relation: Relation): TablePlan => this.#plans.get(relation) as TablePlan;

  /**
   * The fast way: everything in one flight, folded or else change by change. False when it must be done otherwise;
   * the transaction is rolled back to before the group.
   */
  async #applyTogether(group: Group, folded: Folded | undefined): Promise<boolean> {
    const batch = this.#batch();
    const rowsBefore = this.#rows;
    // What each execute must affect: rows, or -1 for any number.
    const expected = this.#bound(batch, group.begins);
    if (folded === undefined) await this.#writeChanges(batch, group, expected);
    else await this.#writeFolded(batch, folded, expected);
    if (group.ends && !batch.failed)
      this.#writeProgress(
        batch,
        lastOf(group).endLsn,
        lastOf(group).commitTime,
        group.members.length,
        expected,
      );
    const result = await batch.send();
    if (
      result.error === undefined &&
      expected.every((count, at) => count < 0 || result.affected[at] === count)
    )
      return true;
    if (result.error !== undefined && isPassing(result.error.code)) throw this.#unexpected(result);
    await this.#undo(group);
    this.#rows = rowsBefore;
    return false;
  }

  async #writeChanges(batch: Batch, group: Group, expected: number[]): Promise<void> {
    let index = 0;
    for (const { transaction, end } of group.members) {
      for (; index < end && !batch.failed; index++) {
        this.#write(batch, group.changes[index] as Change, transaction, expected);
        if (batch.buffered >= FLUSH_BYTES) await batch.flush();
      }
    }
  }

  async #writeFolded(batch: Batch, { steps, rows }: Folded, expected: number[]): Promise<void> {
    this.#rows += rows;
    for (const step of steps) {
      if (batch.failed) return;
      if (step.kind === "net") await this.#sets.write(batch, step.tables, expected);
      else {
        this.#write(batch, step.change, step.transaction, expected);
        if (batch.buffered >= FLUSH_BYTES) await batch.flush();
      }
    }
  }

  /**
   * Begins the target transaction, or a slice of it behind a savepoint. The savepoint before is released: each that is
   * open costs the server memory, and a look-up of every row version in all of them.
   */
  #bound(batch: Batch, begins: boolean): number[] {
    const statements = begins ? ["begin"] : this.#sliced ? ["release", "savepoint"] : ["savepoint"];
    for (const statement of statements) batch.bindExecute(statement, []);
    this.#sliced = !begins;
    return statements.map(() => -1);
  }

  #write(batch: Batch, change: Change, transaction: Transaction, expected: number[]): void {
    if (change instanceof RowChange) {
      const plan = this.#planOf(change.relation);
      if (!this.#writer.row(batch, plan, change)) throw columnsNotSent(plan, transaction);
      expected.push(1);
      this.#rows++;
      return;
    }
    const plans = change.relations.map(this.#planOf);
    if (!this.#writer.truncate(batch, plans, change)) throw partTruncated(plans, transaction);
    expected.push(-1);
  }

  async #undo(group: Group): Promise<void> {
    const { connection } = this.#options;
    await connection.query(group.begins ? "rollback" : `rollback to savepoint ${SAVEPOINT}`);
    await connection.query("deallocate all");
    this.#controlPrepared = false;
    this.#writer.cache.forgetAll();
  }

  /** The slow way: change by change, in source order, which the source has proven to be possible. */
  async #replay(group: Group, rowsBefore: number): Promise<void> {
    const { connection, conflict, pipeline } = this.#options;
    if (group.begins) await connection.query("begin");
    await connection.query("set constraints all deferred");
    const replay: Replay = {
      connection,
      pipeline,
      conflict,
      writer: this.#writer,
      planOf: this.#planOf,
    };
    const outcome = await replayGroup(replay, group);
    this.#rows = rowsBefore + outcome.rows;
    this.#conflicts += outcome.conflicts;
    if (!group.ends) return;
    const batch = this.#batch();
    this.#writeProgress(batch, lastOf(group).endLsn, lastOf(group).commitTime, group.members.length);
    const result = await batch.send();
    if (result.error !== undefined) throw this.#unexpected(result);
    this.#requireProgress(result, 0);
  }

  async #commit(group: Group): Promise<Applied> {
    return this.#commitAt(lastOf(group).endLsn, group.members.length);
  }

  async #commitAt(sourceLsn: Lsn, transactions: number): Promise<Applied> {
    const batch = this.#batch();
    batch.bindExecute("commit", []);
    batch.bindExecute("wal", []);
    const result = await batch.send();
    if (result.error !== undefined) throw applyRefused(result.error, undefined, undefined, "commit");
    // A COMMIT of a failed transaction succeeds with this tag.
    if (result.tags.get(0) !== "COMMIT") {
      throw new ErserverError(
        "ERS-602",
        `the target answered COMMIT with ${result.tags.get(0) ?? "nothing"}`,
        {
          remedy: "Please report this; the position on the target is exact and nothing was lost.",
        },
      );
    }
    this.#progressLsn = sourceLsn;
    const [inserted, flushed] = result.rows.get(1)?.[0] ?? [];
    return {
      sourceLsn,
      targetLsn: parseLsn(inserted ?? ""),
      targetFlushedLsn: parseLsn(flushed ?? ""),
      transactions,
      rows: this.#rows,
    };
  }

  /** The position moves from exactly where this session left it: nobody else has moved it. */
  #writeProgress(
    batch: Batch,
    lsn: Lsn,
    commitTime: number | undefined,
    transactions: number,
    expected?: number[],
  ): void {
    batch.bindExecute("progress", [
      this.#options.pipeline,
      formatLsn(lsn),
      commitTime === undefined ? null : new Date(commitTime / 1000).toISOString(),
      String(transactions),
      String(this.#rows),
      String(this.#replays),
      String(this.#conflicts),
      formatLsn(this.#progressLsn),
    ]);
    expected?.push(1);
  }

  #requireProgress(result: BatchResult, at: number): void {
    if (result.affected[at] === 1) return;
    throw new ErserverError(
      "ERS-706",
      `the position of ${this.#options.pipeline} on the target is not ${formatLsn(this.#progressLsn)} any more: somebody else moved it`,
      {
        subject: this.#options.pipeline,
        remedy:
          "Make sure that one replicator serves this target, directly and not through a pooler in transaction mode; then erserver run goes on from the position on the target.",
      },
    );
  }

  #unexpected(result: BatchResult): ErserverError {
    return applyRefused(result.error as ServerError, undefined, undefined, "progress");
  }

  /** A batch in a session whose control statements are prepared. */
  #batch(): Batch {
    const batch = this.#options.connection.batch();
    if (!this.#controlPrepared) {
      for (const [name, sql] of Object.entries(CONTROL_STATEMENTS)) batch.parse(name, sql, []);
      this.#controlPrepared = true;
    }
    return batch;
  }
}

const CONTROL_STATEMENTS = {
  begin: "begin",
  commit: "commit",
  savepoint: `savepoint ${SAVEPOINT}`,
  release: `release savepoint ${SAVEPOINT}`,
  wal: "select pg_catalog.pg_current_wal_insert_lsn(), pg_catalog.pg_current_wal_flush_lsn()",
  progress: `update erserver.progress set lsn = $2, commit_time = coalesce($3, commit_time), transactions = transactions + $4::bigint, rows = rows + $5::bigint,
      replays = replays + $6::bigint, conflicts = conflicts + $7::bigint, applied_at = pg_catalog.clock_timestamp()
    where pipeline = $1 and lsn = $8`,
};

function lastOf(group: Group): Transaction {
  return (group.members.at(-1) as Group["members"][number]).transaction;
}
