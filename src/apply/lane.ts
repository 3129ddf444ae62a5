import type { Group } from "../change/group.ts";
import type { Batch } from "../wire/batch.ts";
import type { WireConnection } from "../wire/connection.ts";
import { Progress, SAVEPOINT, type SnapshotAt } from "./progress.ts";
import { RowWriter } from "./row-writer.ts";
import { SetWriter } from "./set-writer.ts";

export interface LaneOptions {
  readonly connection: WireConnection;
  readonly pipeline: string;
  /** Values arrive in binary form. */
  readonly binary: boolean;
  readonly write: "auto" | "rows" | "sets";
  readonly snapshotAt: SnapshotAt;
}

/** A session that writes, with what is prepared in it. */
export class Lane {
  readonly connection: WireConnection;
  readonly progress: Progress;
  readonly rows = new RowWriter();
  readonly sets: SetWriter;
  /** Something that was to be prepared in it was not. */
  isStale = false;

  constructor({ connection, pipeline, binary, write, snapshotAt }: LaneOptions) {
    this.connection = connection;
    this.progress = new Progress(connection, pipeline, snapshotAt);
    this.sets = new SetWriter({ rows: this.rows, binary, always: write === "sets" });
  }

  batch(): Batch {
    return this.progress.batch();
  }

  /** Takes back what was written of a group. */
  async undo({ begins }: Pick<Group, "begins">): Promise<void> {
    await this.connection.query(begins ? "rollback" : `rollback to savepoint ${SAVEPOINT}`);
    await this.forget();
  }

  /** Nothing is prepared in it any more. */
  async forget(): Promise<void> {
    await this.connection.query("deallocate all");
    this.progress.forget();
    this.rows.cache.forgetAll();
    this.isStale = false;
  }
}
