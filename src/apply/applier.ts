import { RowChange } from "../change/change.ts";
import type { Group } from "../change/group.ts";
import { formatLsn, type Lsn, parseLsn } from "../change/lsn.ts";
import type { Relation } from "../change/relation.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { SQLSTATE } from "../errors/sqlstate.ts";
import type { WireConnection } from "../wire/connection.ts";
import { withoutCopied } from "./already-copied.ts";
import { applyRefused } from "./apply-errors.ts";
import { canCommitUnanswered, type Committed, Flight, type PlanOf, rowsOf } from "./flight.ts";
import { Footprint, type RowKeys } from "./footprint.ts";
import { InProgress } from "./in-progress.ts";
import { Lane } from "./lane.ts";
import { Lanes } from "./lanes.ts";
import type { SnapshotAt } from "./progress.ts";
import { replayGroup } from "./replay.ts";
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
  /** Rejects when the relation cannot be written (ERS-4xx). A transaction in progress may describe tables that only that knows. */
  readonly planFor: (relation: Relation, inProgress: boolean) => Promise<TablePlan>;
  readonly copies: TableCopies;
  readonly conflict: ConflictPolicy;
  /** Values arrive in binary form. */
  readonly binary: boolean;
  /**
   * `rows`: a statement for each change, in source order; `sets`: net changes, a statement for many rows; `auto`: what suits the
   * group.
   */
  readonly write: "auto" | "rows" | "sets";
  /** The target's answers take long: groups follow each other without waiting for them. */
  readonly far: boolean;
  readonly snapshotAt: SnapshotAt;
  readonly parallel: ParallelOptions;
}

export interface ParallelOptions {
  /** Sessions that write at the same time, with `connection`. */
  readonly workers: number;
  /** Opens one more, with the same settings. Its end must be told to whoever would be told of the first one's. */
  readonly connect: () => Promise<WireConnection>;
  readonly keysOf: (plan: TablePlan) => RowKeys;
  /** The backends that a backend waits for: pg_blocking_pids. */
  readonly blockersOf: (backendPid: number) => Promise<readonly number[]>;
  /** A session more cannot be had; called once. */
  readonly onRefused: (reason: Error) => void;
}

/** All is written by `connection`. */
export const ONE_SESSION: ParallelOptions = {
  workers: 1,
  connect: () => Promise.reject(new Error("one session writes")),
  keysOf: () => {
    throw new Error("one session writes");
  },
  blockersOf: () => Promise.resolve([]),
  onRefused: () => {},
};

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

/**
 * Gives the group behind, as soon as it is complete; undefined when it is not before the promise settles. When `eager` it need not
 * be complete: whatever has come is better sent than left to gather.
 */
export type NextGroup = (answered: Promise<unknown>, eager: boolean) => Promise<Group | undefined>;

/** Groups of fewer changes are written change by change: there is little to fold. */
const FEW_CHANGES = 50;

/**
 * At most so many changes are committed in the flight that writes them, whatever is in front of it. Near, the check that each statement
 * needs for that soon costs more than the answer that need not be waited for.
 */
const FEW_UNANSWERED = { near: 20, far: 1_000 };

/** Most groups on their way at once whose COMMIT waits for no answer. */
const MOST_UNANSWERED = 256;

/** So many groups are written one by one after one that failed, or stood in the way of another. */
const SERIAL_GROUPS = 16;

/** How long the target may work on a group before it is asked what it waits for. */
const BLOCKED_MS = 1_000;

/** A group that is being written. */
interface Begun {
  readonly delivered: Group;
  readonly flight: Flight;
  /** Undefined where it may touch anything. */
  readonly footprint: Footprint | undefined;
}

interface Beginning {
  readonly group: Group;
  readonly unanswered: boolean;
  /** The one in front of it. */
  readonly before: Flight | undefined;
  readonly lane: Lane;
  /** The last one in front of it in its session, which need not be committed yet. */
  readonly behind?: Flight | undefined;
}

/**
 * Writes groups to the target: one target transaction each, the position in the same transaction, all statements
 * sent without waiting for answers. When a statement fails or affects no row, the group is rolled back and
 * replayed change by change, where a conflict can be told from an error.
 *
 * While the target works on a group the next ones are begun. One that touches nothing that those in front of it touch is written at
 * the same time, in another session; any other is made ready, and goes out behind the COMMIT in front of it. All are committed in the
 * source's order: each moves the position from where the one in front leaves it, or fails.
 */
export class Applier implements AsyncDisposable {
  readonly #options: ApplierOptions;
  readonly #lanes: Lanes;
  readonly #planOf: PlanOf = (relation) => this.#plans.get(relation) as TablePlan;
  /** By the relation as the stream described it: a group may hold changes from before and after an ALTER TABLE. */
  readonly #plans = new WeakMap<Relation, TablePlan>();
  /** A group that cannot be written; that is thrown when its time has come. */
  #refused: Group | undefined;
  readonly #keysOf = new WeakMap<Relation, RowKeys>();
  readonly #inProgress: InProgress;
  readonly #watch: NodeJS.Timeout;
  #progressLsn: Lsn;
  /** What is being applied, or was last, and what is begun behind it, in order. */
  #begun: Begun[] = [];
  /** What `next` gave and is not applied yet, in order; begun or not. */
  readonly #given: Group[] = [];
  #turn = 0;
  /** So many groups are to be written one by one. */
  #serial = 0;
  /** Sessions in which something was begun too early. */
  readonly #withdrawn = new Map<Lane, Promise<void>>();
  /** What `apply` is at: the session that it waits for, if there is one yet. */
  #awaited: (() => Lane | undefined) | undefined;
  #watched: (() => Lane | undefined) | undefined;

  constructor(options: ApplierOptions) {
    const { connection, progressLsn, parallel } = options;
    this.#options = options;
    this.#progressLsn = progressLsn;
    const open = async (): Promise<Lane> => new Lane({ ...options, connection: await parallel.connect() });
    this.#lanes = new Lanes(new Lane({ ...options, connection }), { ...parallel, open });
    this.#inProgress = new InProgress({
      plan: (slice) => this.#plan(slice),
      planOf: this.#planOf,
      open,
      isNet: (slice) => this.#isNet(slice),
    });
    // Of a session that is lost the pipeline hears.
    this.#watch = setInterval(() => void this.#look().catch(() => {}), BLOCKED_MS);
  }

  /** Ends the sessions that were opened here. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#watch);
    await Promise.all([this.#lanes.end(), this.#inProgress[Symbol.asyncDispose]()]);
  }

  /** The source position that the target has. */
  get progressLsn(): Lsn {
    return this.#progressLsn;
  }

  /**
   * Applies a group, or a slice; resolves when it is committed (for a slice that does not end its transaction:
   * written), with undefined for the latter. Whatever it throws, nothing of an open target transaction remains
   * once the sessions are closed. Groups that `next` gives must be the next that are applied.
   */
  async apply(delivered: Group, next: NextGroup): Promise<Applied | undefined> {
    try {
      return await (delivered.inProgress ? this.#applyInProgress(delivered) : this.#apply(delivered, next));
    } finally {
      this.#awaited = undefined;
    }
  }

  async #apply(delivered: Group, next: NextGroup): Promise<Applied | undefined> {
    const before = this.#begun.shift();
    const expected = this.#given.shift() ?? delivered;
    if (expected !== delivered || (this.#begun[0] ?? { delivered }).delivered !== delivered)
      throw new Error("a group was to be applied before the one in front of it");
    if (this.#begun[0] === undefined) {
      const lane = this.#laneOf(before);
      if (lane.isStale) await lane.forget();
      const group = this.#remaining(delivered);
      await this.#plan(group);
      const unanswered = this.#isUnanswered(group);
      const flight = this.#begin({ group, unanswered, before: before?.flight, lane });
      this.#begun = [{ delivered, flight, footprint: unanswered ? undefined : this.#footprint(group) }];
    }
    const { flight } = this.#begun[0] as Begun;
    this.#awaited = () => flight.lane;
    flight.release();
    await flight.sent;
    await this.#lookAhead(flight, next);
    const written = (await flight.succeeded()) ? flight : await this.#otherwise(flight);
    if (!flight.group.ends) return undefined;
    const { toLsn, group, counts } = flight;
    const applied = { sourceLsn: toLsn, transactions: group.members.length, rows: counts.rows };
    return this.#applied(await written.commit(), flight.options.fromLsn, applied);
  }

  /** All that was given before it is committed. */
  async #applyInProgress(slice: Group): Promise<Applied | undefined> {
    this.#begun = [];
    this.#awaited = () => this.#inProgress.laneOf(slice);
    const fromLsn = this.#progressLsn;
    const flight = await this.#inProgress.write(slice, fromLsn);
    if (flight === undefined) return undefined;
    const applied = { sourceLsn: flight.toLsn, transactions: 1, rows: flight.counts.rows };
    return this.#applied(await flight.commit(), fromLsn, applied);
  }

  /** Moves the position over WAL that holds nothing for us. */
  async advance(lsn: Lsn): Promise<Applied> {
    const { connection, progress } = this.#laneOf(this.#begun[0]);
    if (connection.transactionStatus !== "I")
      throw new Error("the position was to be moved in the middle of a transaction");
    const batch = progress.batch();
    batch.bindExecute("begin", []);
    const counts = { rows: 0, replays: 0, conflicts: 0 };
    const fromLsn = this.#progressLsn;
    progress.commit(batch, { fromLsn, lsn, commitTime: undefined, transactions: 0, counts });
    this.#begun = [];
    const committed = { result: await batch.send(), at: 2 };
    return this.#applied(committed, fromLsn, { sourceLsn: lsn, transactions: 0, rows: 0 });
  }

  /** How far the target's WAL is durable; asked in the session of the transaction that is open, if one is. */
  async flushedLsn(): Promise<Lsn> {
    const { connection } = this.#laneOf(this.#begun[0]);
    const [result] = await connection.query("select pg_catalog.pg_current_wal_flush_lsn()");
    return parseLsn(result?.rows[0]?.[0] ?? "");
  }

  #laneOf(begun: Begun | undefined): Lane {
    return begun?.flight.lane ?? this.#lanes.first;
  }

  async #plan({ changes, inProgress }: Group): Promise<void> {
    for (const change of changes) {
      for (const relation of change instanceof RowChange ? [change.relation] : change.relations)
        if (!this.#plans.has(relation))
          this.#plans.set(relation, await this.#options.planFor(relation, inProgress === true));
    }
  }

  /** Without what came with the tables' copies. */
  #remaining(delivered: Group): Group {
    const { copies } = this.#options;
    const first = delivered.members[0]?.transaction;
    return first !== undefined && first.commitLsn < copies.newestLsn
      ? withoutCopied(delivered, copies.lsnOf)
      : delivered;
  }

  async #lookAhead(head: Flight, next: NextGroup): Promise<void> {
    while (this.#hasRoom()) {
      const delivered = this.#given[this.#begun.length - 1];
      if (delivered === undefined) {
        const eager = this.#options.far && this.#begun.every(({ flight }) => flight.options.unanswered);
        const given = await next(head.answered, eager);
        if (given === undefined) return;
        this.#given.push(given);
        continue;
      }
      const group = this.#remaining(delivered);
      if (delivered === this.#refused) return;
      if (!(await this.#isPlanned(group))) {
        this.#refused = delivered;
        return;
      }
      // What is begun may have been taken back meanwhile: then another group is next.
      if (this.#given[this.#begun.length - 1] !== delivered) continue;
      const byItself = this.#isUnanswered(group);
      const footprint = byItself ? undefined : this.#footprint(group);
      const lane = this.#laneFor(footprint);
      const before = (this.#begun.at(-1) as Begun).flight;
      const behind = this.#begun.findLast(({ flight }) => flight.lane === lane)?.flight;
      const unanswered = byItself || (before === behind && this.#mayFollowUnanswered(group, footprint));
      const flight = this.#begin({ group, unanswered, before, lane, behind });
      this.#begun.push({ delivered, flight, footprint });
      if (before !== behind) void commitInTurn(flight, before);
    }
  }

  #hasRoom(): boolean {
    const ahead = this.#begun.slice(1);
    const answered = ahead.filter(({ flight }) => !flight.options.unanswered).length;
    if (this.#laneOf(this.#begun[0]).isStale || ahead.some(({ flight }) => flight.hasFailed)) return false;
    // While groups fail, whatever is sent behind them is sent in vain.
    const most = this.#serial > 0 ? 1 : MOST_UNANSWERED;
    return ahead.length < most && answered < this.#options.parallel.workers;
  }

  /** Its COMMIT waits for no answer, and neither does what is behind it, in the same session. */
  #isUnanswered(group: Group): boolean {
    const most = this.#options.far ? FEW_UNANSWERED.far : this.#isNet(group) ? 0 : FEW_UNANSWERED.near;
    return group.changes.length <= most && canCommitUnanswered(group, this.#planOf);
  }

  /** The same for a large group that could not be written beside those in front of it in any case. */
  #mayFollowUnanswered(group: Group, footprint: Footprint | undefined): boolean {
    if (!this.#options.far || !this.#isNet(group) || !canCommitUnanswered(group, this.#planOf)) return false;
    return (
      footprint === undefined ||
      this.#begun.some((other) => other.footprint !== undefined && footprint.meets(other.footprint))
    );
  }

  #footprint(group: Group): Footprint | undefined {
    if (this.#options.parallel.workers === 1 || this.#serial > 0) return undefined;
    return new Footprint(group, (relation) => this.#keys(relation));
  }

  async #isPlanned(group: Group): Promise<boolean> {
    return this.#plan(group).then(
      () => true,
      () => false,
    );
  }

  /** The session of the last group that this one may have to do with; else whichever is free first. */
  #laneFor(footprint: Footprint | undefined): Lane {
    const last = this.#laneOf(this.#begun.at(-1));
    const met = this.#begun.findLast(
      ({ flight, footprint: other }) =>
        // An unanswered one has no turn for which what is behind it in another session could wait.
        flight.options.unanswered || footprint === undefined || other === undefined || footprint.meets(other),
    );
    if (met !== undefined) return met.flight.lane;
    const busy = new Set(this.#begun.toReversed().map(({ flight }) => flight.lane));
    const free = this.#lanes.free((lane) => busy.has(lane) || this.#withdrawn.has(lane));
    return free ?? [...busy].at(-1) ?? last;
  }

  #isNet({ changes }: Group): boolean {
    const { write } = this.#options;
    return write === "sets" || (write === "auto" && changes.length >= FEW_CHANGES);
  }

  #keys(relation: Relation): RowKeys {
    let keys = this.#keysOf.get(relation);
    if (keys === undefined) {
      keys = this.#options.parallel.keysOf(this.#planOf(relation));
      this.#keysOf.set(relation, keys);
    }
    return keys;
  }

  /** Begins to write a group. */
  #begin({ group, unanswered, before, lane, behind }: Beginning): Flight {
    if (this.#serial > 0) this.#serial--;
    const { workers } = this.#options.parallel;
    const { rows, replays, conflicts } =
      group.begins || before === undefined ? { rows: 0, replays: 0, conflicts: 0 } : before.counts;
    const options = {
      group,
      lane,
      planOf: this.#planOf,
      counts: { rows: rows + rowsOf(group), replays, conflicts },
      fromLsn: before?.toLsn ?? this.#progressLsn,
      sliced: before?.group.begins === false,
      net: this.#isNet(group),
      unanswered,
      turn: workers > 1 && group.begins && group.ends && !unanswered ? this.#nextTurn() : undefined,
    };
    return new Flight(options, behind);
  }

  #nextTurn(): number {
    this.#turn = (this.#turn + 1) % 2 ** 31;
    return this.#turn;
  }

  /** What failed in the fastest way is done in another; those behind it are begun once more, when they are applied. */
  async #otherwise(flight: Flight): Promise<Flight> {
    const ahead = this.#begun.splice(1).map((begun) => begun.flight);
    const { lane, counts, group } = flight;
    // They fail with it, or were not sent.
    await Promise.all(ahead.filter((other) => other.lane === lane).map((other) => other.abandon()));
    counts.replays++;
    await lane.undo(group);
    this.#withdraw(ahead.filter((other) => other.lane !== lane));
    await Promise.all(this.#withdrawn.values());
    const { net, unanswered } = flight.options;
    const again = net || unanswered ? await this.#inOrder(flight) : undefined;
    if (again !== undefined) return again;
    await this.#replay(flight);
    flight.rewritten();
    return flight;
  }

  /**
   * What a set objects to may be its order alone, such as two rows that exchange a unique value; what checks itself is refused where a
   * rule of the target fires.
   */
  async #inOrder(flight: Flight): Promise<Flight | undefined> {
    // A slice's savepoint is there still.
    const again = new Flight({ ...flight.options, net: false, unanswered: false, sliced: true });
    if (await again.succeeded()) return again;
    await flight.lane.undo(flight.group);
    return undefined;
  }

  /** The slow way: change by change, in source order, which the source has proven to be possible. */
  async #replay({ group, counts, lane: { connection, rows } }: Flight): Promise<void> {
    const { conflict, pipeline } = this.#options;
    if (group.begins) await connection.query("begin");
    await connection.query("set constraints all deferred");
    const replay = { connection, pipeline, conflict, writer: rows, planOf: this.#planOf };
    counts.conflicts += await replayGroup(replay, group);
  }

  /** Takes back what was begun in other sessions, and goes on carefully. */
  #withdraw(flights: readonly Flight[]): void {
    this.#serial = SERIAL_GROUPS;
    for (const lane of new Set(flights.map((flight) => flight.lane))) {
      const withdrawn = undoAll(
        lane,
        flights.filter((flight) => flight.lane === lane),
      ).finally(() => this.#withdrawn.delete(lane));
      // Of a connection that breaks the pipeline hears.
      withdrawn.catch(() => {});
      this.#withdrawn.set(lane, withdrawn);
    }
  }

  /**
   * What the keys do not show, such as a unique index that was made on the target since: what waits for a row of what has to be
   * committed behind it. The server cannot see that.
   */
  async #look(): Promise<void> {
    const awaited = this.#awaited;
    const late = awaited === this.#watched;
    this.#watched = awaited;
    const session = awaited?.()?.connection;
    const head = this.#begun[0]?.flight;
    const elsewhere = ({ flight }: Begun): boolean => flight.lane !== head?.lane;
    if (session === undefined || !late || (this.#inProgress.isEmpty && !this.#begun.some(elsewhere))) return;
    const blockers = await this.#options.parallel.blockersOf(session.backendPid);
    if (this.#awaited !== awaited) return;
    this.#inProgress.giveWay(blockers);
    if (head === undefined || this.#begun[0]?.flight !== head || head.isAnswered) return;
    if (
      !this.#begun
        .filter(elsewhere)
        .some(({ flight: { lane } }) => blockers.includes(lane.connection.backendPid))
    )
      return;
    const ahead = this.#begun.splice(1).map(({ flight }) => flight);
    for (const flight of ahead.filter(({ lane }) => lane === head.lane)) {
      // Not sent, with whatever was to be prepared by it.
      void flight.abandon();
      head.lane.isStale = true;
    }
    this.#withdraw(ahead.filter(({ lane }) => lane !== head.lane));
  }

  #applied(
    { result: { error, failedAt, tags, rows }, at }: Committed,
    fromLsn: Lsn,
    what: Pick<Applied, "sourceLsn" | "transactions" | "rows">,
  ): Applied {
    if (error?.code === SQLSTATE.divisionByZero && failedAt === at - 1) throw this.#moved(fromLsn);
    if (error !== undefined) throw applyRefused(error, undefined, undefined, "commit");
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

  #moved(fromLsn: Lsn): ErserverError {
    const { pipeline } = this.#options;
    return new ErserverError(
      "ERS-706",
      `the position of ${pipeline} on the target is not ${formatLsn(fromLsn)} any more: somebody else moved it`,
      {
        subject: pipeline,
        remedy:
          "Make sure that one replicator serves this target, directly and not through a pooler in transaction mode; then erserver run goes on from the position on the target.",
      },
    );
  }
}

/** As soon as what is before it, in another session, is as good as committed. */
async function commitInTurn(flight: Flight, before: Flight): Promise<void> {
  try {
    await before.commitSent;
    if ((await flight.succeeded()) && !flight.isAbandoned) void flight.commit(before.options.turn);
  } catch {
    // Whoever applies it gets the error.
  }
}

async function undoAll(lane: Lane, flights: readonly Flight[]): Promise<void> {
  await Promise.all(flights.map((flight) => flight.abandon()));
  await lane.undo({ begins: true });
}
