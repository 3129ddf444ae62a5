import { RowChange } from "../change/change.ts";
import type { Group } from "../change/group.ts";
import { formatLsn, type Lsn, parseLsn } from "../change/lsn.ts";
import type { Relation } from "../change/relation.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import type { Batch, BatchResult } from "../wire/batch.ts";
import type { WireConnection } from "../wire/connection.ts";
import { withoutCopied } from "./already-copied.ts";
import { applyRefused } from "./apply-errors.ts";
import {
  Flight,
  type FlightContext,
  type FlightOptions,
  lastOf,
  type Outcome,
  unexpected,
} from "./flight.ts";
import { type Move, Progress, SAVEPOINT } from "./progress.ts";
import { replayGroup } from "./replay.ts";
import { RowWriter } from "./row-writer.ts";
import { SetWriter } from "./set-writer.ts";
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

/** Gives the group behind, as soon as it is complete; undefined when it is not before the promise settles. */
export type NextGroup = (answered: Promise<unknown>) => Promise<Group | undefined>;

/** Groups of fewer changes are written change by change: there is little to fold. */
const FEW_CHANGES = 50;

/**
 * Writes groups to the target: one target transaction each, the position in the same transaction, all statements
 * sent without waiting for answers. When a statement fails or affects no row, the group is rolled back and
 * replayed change by change, where a conflict can be told from an error.
 *
 * While the target works on a group the next one is made ready; it goes out together with the COMMIT.
 */
export class Applier {
  readonly #options: ApplierOptions;
  readonly #progress: Progress;
  readonly #rows = new RowWriter();
  readonly #context: FlightContext;
  /** By the relation as the stream described it: a group may hold changes from before and after an ALTER TABLE. */
  readonly #plans = new WeakMap<Relation, TablePlan>();
  #progressLsn: Lsn;
  /** The last group that was written. */
  #last: Flight | undefined;
  /** The one behind it, which is being made ready. */
  #ahead: { readonly delivered: Group; readonly flight: Flight } | undefined;

  constructor(options: ApplierOptions) {
    const { connection, pipeline, progressLsn, binary, write } = options;
    this.#options = options;
    this.#progressLsn = progressLsn;
    this.#progress = new Progress(connection, pipeline);
    this.#context = {
      progress: this.#progress,
      rows: this.#rows,
      sets: new SetWriter({ rows: this.#rows, binary, always: write === "sets" }),
      plan: (group) => this.#plan(group),
      planOf: (relation) => this.#plans.get(relation) as TablePlan,
    };
  }

  /** The source position that the target has. */
  get progressLsn(): Lsn {
    return this.#progressLsn;
  }

  /**
   * Applies a group, or a slice; resolves when it is committed (for a slice that does not end its transaction:
   * written), with undefined for the latter. Whatever it throws, nothing of the open target transaction remains
   * once the session is closed. A group that `next` gives must be the next that is applied.
   */
  async apply(delivered: Group, next: NextGroup): Promise<Applied | undefined> {
    const flight =
      this.#ahead?.delivered === delivered ? this.#ahead.flight : this.#start(delivered, this.#last);
    this.#ahead = undefined;
    flight.release();
    await flight.sent;
    await this.#lookAhead(flight, next);
    const outcome = (await flight.succeeded()) ?? (await this.#otherwise(flight));
    this.#last = flight;
    const committed = flight.group.ends ? this.#committed(flight, outcome) : undefined;
    // Its first bytes go right behind the COMMIT.
    this.#releaseAhead();
    return committed;
  }

  #releaseAhead(): void {
    this.#ahead?.flight.release();
  }

  /** Moves the position over WAL that holds nothing for us. */
  async advance(lsn: Lsn): Promise<Applied> {
    if (this.#options.connection.transactionStatus !== "I")
      throw new Error("the position was to be moved in the middle of a transaction");
    const batch = this.#progress.batch();
    batch.bindExecute("begin", []);
    const counts = { rows: 0, replays: 0, conflicts: 0 };
    await this.#move(batch, {
      fromLsn: this.#progressLsn,
      lsn,
      commitTime: undefined,
      transactions: 0,
      counts,
    });
    this.#last = undefined;
    return this.#commit(lsn, 0, 0);
  }

  /** How far the target's WAL is durable. */
  async flushedLsn(): Promise<Lsn> {
    const [result] = await this.#options.connection.query("select pg_catalog.pg_current_wal_flush_lsn()");
    return parseLsn(result?.rows[0]?.[0] ?? "");
  }

  async #plan({ changes }: Group): Promise<void> {
    for (const change of changes) {
      for (const relation of change instanceof RowChange ? [change.relation] : change.relations)
        if (!this.#plans.has(relation)) this.#plans.set(relation, await this.#options.planFor(relation));
    }
  }

  async #lookAhead(flight: Flight, next: NextGroup): Promise<void> {
    const group = await next(flight.answered);
    if (group !== undefined) this.#ahead = { delivered: group, flight: this.#start(group, flight, true) };
  }

  /** Begins to write a group behind another, which need not be committed yet. */
  #start(delivered: Group, before: Flight | undefined, held = false): Flight {
    const { copies, write } = this.#options;
    const first = delivered.members[0]?.transaction;
    const group =
      first !== undefined && first.commitLsn < copies.newestLsn
        ? withoutCopied(delivered, copies.lsnOf)
        : delivered;
    const { rows, replays, conflicts } =
      group.begins || before === undefined ? { rows: 0, replays: 0, conflicts: 0 } : before.counts;
    return this.#fly(
      {
        group,
        counts: { rows: rows + rowsOf(group), replays, conflicts },
        fromLsn: before?.toLsn ?? this.#progressLsn,
        sliced: before?.group.begins === false,
        net: write === "sets" || (write === "auto" && group.changes.length >= FEW_CHANGES),
      },
      held,
    );
  }

  #fly(options: FlightOptions, held: boolean): Flight {
    const batch = this.#progress.batch();
    return new Flight(this.#context, options, held ? batch.hold() : batch);
  }

  /** What failed in the fastest way is done in another; the one behind it starts once more. */
  async #otherwise(flight: Flight): Promise<Outcome | undefined> {
    const ahead = this.#ahead;
    await ahead?.flight.abandon();
    flight.counts.replays++;
    await this.#undo(flight.group);
    const outcome = flight.options.net ? await this.#inOrder(flight) : undefined;
    if (outcome === undefined) await this.#replay(flight);
    if (ahead !== undefined) this.#ahead = { ...ahead, flight: this.#start(ahead.delivered, flight, true) };
    return outcome;
  }

  /** What a set objects to may be its order alone, such as two rows that exchange a unique value. */
  async #inOrder(flight: Flight): Promise<Outcome | undefined> {
    // A slice's savepoint is there still.
    const again = this.#fly({ ...flight.options, net: false, sliced: true }, false);
    const outcome = await again.succeeded();
    if (outcome === undefined) await this.#undo(flight.group);
    return outcome;
  }

  async #undo(group: Group): Promise<void> {
    const { connection } = this.#options;
    await connection.query(group.begins ? "rollback" : `rollback to savepoint ${SAVEPOINT}`);
    await connection.query("deallocate all");
    this.#progress.forget();
    this.#rows.cache.forgetAll();
  }

  /** The slow way: change by change, in source order, which the source has proven to be possible. */
  async #replay(flight: Flight): Promise<void> {
    const { connection, conflict, pipeline } = this.#options;
    const { group, counts, fromLsn } = flight.options;
    if (group.begins) await connection.query("begin");
    await connection.query("set constraints all deferred");
    const { planOf } = this.#context;
    const replay = { connection, pipeline, conflict, writer: this.#rows, planOf };
    counts.conflicts += await replayGroup(replay, group);
    if (!group.ends) return;
    const { endLsn, commitTime } = lastOf(group);
    const move = { fromLsn, lsn: endLsn, commitTime, transactions: group.members.length, counts };
    await this.#move(this.#progress.batch(), move);
  }

  async #move(batch: Batch, move: Move): Promise<void> {
    this.#progress.write(batch, move);
    const result = await batch.send();
    if (result.error !== undefined) throw unexpected(result.error);
    if (result.affected.at(-1) === 1) return;
    const { pipeline } = this.#options;
    throw new ErserverError(
      "ERS-706",
      `the position of ${pipeline} on the target is not ${formatLsn(move.fromLsn)} any more: somebody else moved it`,
      {
        subject: pipeline,
        remedy:
          "Make sure that one replicator serves this target, directly and not through a pooler in transaction mode; then erserver run goes on from the position on the target.",
      },
    );
  }

  async #committed({ group, toLsn, counts }: Flight, outcome: Outcome | undefined): Promise<Applied> {
    const { length } = group.members;
    return outcome?.committed === undefined
      ? this.#commit(toLsn, length, counts.rows)
      : this.#applied(outcome.result, outcome.committed, {
          sourceLsn: toLsn,
          transactions: length,
          rows: counts.rows,
        });
  }

  async #commit(sourceLsn: Lsn, transactions: number, rows: number): Promise<Applied> {
    const batch = this.#progress.batch();
    this.#progress.commit(batch);
    const result = await batch.send();
    if (result.error !== undefined) throw applyRefused(result.error, undefined, undefined, "commit");
    return this.#applied(result, 0, { sourceLsn, transactions, rows });
  }

  /** `at` is the index of the COMMIT. */
  #applied(
    { tags, rows }: BatchResult,
    at: number,
    what: Pick<Applied, "sourceLsn" | "transactions" | "rows">,
  ): Applied {
    // A COMMIT of a failed transaction succeeds with this tag.
    const tag = tags.get(at) ?? "nothing";
    if (tag !== "COMMIT") {
      throw new ErserverError("ERS-602", `the target answered COMMIT with ${tag}`, {
        remedy: "Please report this; the position on the target is exact and nothing was lost.",
      });
    }
    this.#progressLsn = what.sourceLsn;
    const [inserted, flushed] = rows.get(at + 1)?.[0] ?? [];
    return { ...what, targetLsn: parseLsn(inserted ?? ""), targetFlushedLsn: parseLsn(flushed ?? "") };
  }
}

function rowsOf({ changes }: Group): number {
  let rows = 0;
  for (const change of changes) if (change instanceof RowChange) rows++;
  return rows;
}
