import type { Group } from "../change/group.ts";
import type { Lsn } from "../change/lsn.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { mustCommitFirst } from "../errors/must-commit-first.ts";
import { Flight, type PlanOf, rowsOf } from "./flight.ts";
import type { Lane } from "./lane.ts";

export interface InProgressOptions {
  /** Rejects when a relation of the slice cannot be written (ERS-4xx). */
  readonly plan: (slice: Group) => Promise<void>;
  readonly planOf: PlanOf;
  readonly open: () => Promise<Lane>;
  /** Whether a slice is written as net changes. */
  readonly isNet: (slice: Group) => boolean;
}

/** What has been written of a transaction. */
interface Written {
  readonly lane: Lane;
  last: Flight | undefined;
  rows: number;
}

/** Transactions that are written at the same time: each has a session, and whatever it has locked. */
const MOST = 4;

/** A connection was lost, or a statement broken off: it can be tried again as it was. Or it is said already. */
const PASSING: ReadonlySet<string> = new Set(["ERS-204", "ERS-510", "ERS-705"]);

/**
 * Writes transactions that have not committed on the source, each in a session of its own, where it stays open between its slices.
 *
 * A slice is written when all that committed before it came is committed here too. What comes behind it is written beside it: on the
 * source it did not have to wait for the transaction's locks, so here it need not either. Where the target's locks are others than
 * the source's, or a slice cannot be written as it is, everything is taken back (ERS-510), to be written after the commit.
 */
export class InProgress implements AsyncDisposable {
  readonly #options: InProgressOptions;
  readonly #written = new Map<number, Written>();
  readonly #idle: Lane[] = [];

  constructor(options: InProgressOptions) {
    this.#options = options;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const lanes = [...this.#idle, ...[...this.#written.values()].map(({ lane }) => lane)];
    await Promise.all(
      lanes.map(async ({ connection }) => (connection.busy ? connection.destroy() : connection.end())),
    );
  }

  get isEmpty(): boolean {
    return this.#written.size === 0;
  }

  /** The session in which a slice is written. */
  laneOf(slice: Group): Lane | undefined {
    return this.#written.get(xidOf(slice))?.lane;
  }

  /** Ends the sessions that are among these backends: they stand in the way of what has to end before them. */
  giveWay(blockers: readonly number[]): void {
    for (const [xid, { lane }] of this.#written)
      if (blockers.includes(lane.connection.backendPid))
        lane.connection.destroy(
          mustCommitFirst(xid, "on the target it has locked what an earlier one waits for"),
        );
  }

  /**
   * Writes a slice, of which more may still be on its way when this resolves. Resolves with what is to be committed when the
   * transaction has been, else with undefined.
   * @param fromLsn the target's position
   */
  async write(slice: Group, fromLsn: Lsn): Promise<Flight | undefined> {
    const xid = xidOf(slice);
    if (slice.rolledBack) {
      await this.#takeBack(xid);
      return undefined;
    }
    try {
      return await this.#write(xid, slice, fromLsn);
    } catch (error) {
      if (!(error instanceof ErserverError) || PASSING.has(error.code)) throw error;
      // It may be of a transaction that is rolled back, or of a table that only that knows.
      throw mustCommitFirst(xid, error.message, error);
    }
  }

  async #write(xid: number, slice: Group, fromLsn: Lsn): Promise<Flight | undefined> {
    const written = this.#written.get(xid) ?? (await this.#begin(xid));
    const { lane, last } = written;
    written.rows += rowsOf(slice);
    await this.#options.plan(slice);
    const flight = new Flight({
      group: slice,
      lane,
      planOf: this.#options.planOf,
      counts: { rows: written.rows, replays: 0, conflicts: 0 },
      fromLsn,
      sliced: false,
      net: this.#options.isNet(slice),
      unanswered: false,
      turn: undefined,
    });
    // The one before may still be on its way: if it fails, so does this one, and everything is taken back.
    await flight.sent;
    if (last !== undefined) await asExpected(xid, last);
    written.last = flight;
    if (!slice.ends) return undefined;
    await asExpected(xid, flight);
    this.#written.delete(xid);
    this.#idle.push(lane);
    return flight;
  }

  async #begin(xid: number): Promise<Written> {
    if (this.#written.size === MOST) throw mustCommitFirst(xid, `${MOST} others are being written already`);
    const written = { lane: this.#idle.pop() ?? (await this.#open()), last: undefined, rows: 0 };
    this.#written.set(xid, written);
    return written;
  }

  async #open(): Promise<Lane> {
    const lane = await this.#options.open();
    // Nobody knows how long the source's transaction stays idle; that we are gone the server notices by other settings.
    await lane.connection.query("set idle_in_transaction_session_timeout = 0");
    return lane;
  }

  async #takeBack(xid: number): Promise<void> {
    const written = this.#written.get(xid);
    if (written === undefined) return;
    await written.last?.answered.catch(() => {});
    await written.lane.undo({ begins: true });
    this.#written.delete(xid);
    this.#idle.push(written.lane);
  }
}

function xidOf({ members }: Group): number {
  return (members[0] as Group["members"][number]).transaction.xid;
}

async function asExpected(xid: number, flight: Flight): Promise<void> {
  if (!(await flight.succeeded()))
    throw mustCommitFirst(xid, "a row on the target is not as the source's change expects it");
}
