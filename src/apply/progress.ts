import { formatLsn, type Lsn } from "../change/lsn.ts";
import type { Batch } from "../wire/batch.ts";
import type { WireConnection } from "../wire/connection.ts";
import { ofOneRow } from "./statements.ts";

export const SAVEPOINT = "erserver";

const MOVE = `update erserver.progress set lsn = $2, commit_time = coalesce($3, commit_time), transactions = transactions + $4::bigint, rows = rows + $5::bigint,
      replays = replays + $6::bigint, conflicts = conflicts + $7::bigint, applied_at = pg_catalog.clock_timestamp(),
      snapshot = coalesce($9, snapshot)
    where pipeline = $1 and lsn = $8`;

/** The key of an advisory lock that is of one group of one pipeline. */
const TURN = "pg_catalog.hashtext($1)::bigint << 32 | $2::bigint";

/** Prepared in the applier's session under these names. */
const STATEMENTS = {
  begin: "begin",
  commit: "commit",
  savepoint: `savepoint ${SAVEPOINT}`,
  release: `release savepoint ${SAVEPOINT}`,
  wal: "select pg_catalog.pg_current_wal_insert_lsn(), pg_catalog.pg_current_wal_flush_lsn()",
  // Fails when there is another position: see ofOneRow.
  progress: ofOneRow({ sql: MOVE, types: [], parameters: [] }).sql,
  "take turn": `select pg_catalog.pg_advisory_xact_lock(${TURN})`,
  "await turn": `select pg_catalog.pg_advisory_xact_lock_shared(${TURN})`,
};

/** A move of the pipeline's position on the target. */
export interface Move {
  readonly fromLsn: Lsn;
  readonly lsn: Lsn;
  /** Microseconds since 1970; undefined leaves what is on record. */
  readonly commitTime: number | undefined;
  readonly transactions: number;
  readonly counts: { readonly rows: number; readonly replays: number; readonly conflicts: number };
}

/** What is recorded with a position that does not say by itself what the target has. */
export type SnapshotAt = (lsn: Lsn) => string | undefined;

/** The statements around the changes: bounds of transactions, and the pipeline's position. */
export class Progress {
  readonly #connection: WireConnection;
  readonly #pipeline: string;
  readonly #snapshotAt: SnapshotAt;
  #prepared = false;

  constructor(connection: WireConnection, pipeline: string, snapshotAt: SnapshotAt) {
    this.#connection = connection;
    this.#pipeline = pipeline;
    this.#snapshotAt = snapshotAt;
  }

  /** A batch in a session whose statements are prepared, or are by this batch. */
  batch(): Batch {
    const batch = this.#connection.batch();
    if (!this.#prepared) {
      for (const [name, sql] of Object.entries(STATEMENTS)) batch.parse(name, sql, []);
      this.#prepared = true;
    }
    return batch;
  }

  /** The session has no prepared statement any more. */
  forget(): void {
    this.#prepared = false;
  }

  /** Until its end the transaction is the one that `awaitTurn` of the same number waits for, in another session. */
  takeTurn(batch: Batch, turn: number): void {
    batch.bindExecute("take turn", [this.#pipeline, String(turn)]);
  }

  awaitTurn(batch: Batch, turn: number): void {
    batch.bindExecute("await turn", [this.#pipeline, String(turn)]);
  }

  /**
   * Moves the position from exactly where this pipeline left it, and fails by itself (22012) when somebody else has moved it.
   * Then COMMIT, and where the target's WAL ends behind it.
   */
  commit(batch: Batch, { fromLsn, lsn, commitTime, transactions, counts }: Move): void {
    batch.bindExecute("progress", [
      this.#pipeline,
      formatLsn(lsn),
      commitTime === undefined ? null : new Date(commitTime / 1000).toISOString(),
      String(transactions),
      String(counts.rows),
      String(counts.replays),
      String(counts.conflicts),
      formatLsn(fromLsn),
      this.#snapshotAt(lsn) ?? null,
    ]);
    batch.bindExecute("commit", []);
    batch.bindExecute("wal", []);
  }
}
