import type { RowChange, TruncateChange } from "../change/change.ts";
import type { Batch } from "../wire/batch.ts";
import { RowEncoder } from "./row-encoder.ts";
import { StatementCache } from "./statement-cache.ts";
import {
  deleteAllStatements,
  deleteStatement,
  insertStatement,
  ofOneRow,
  keyAsJson,
  Parameters,
  rewriteStatement,
  type StatementText,
  truncateStatement,
  updateStatement,
} from "./statements.ts";
import type { PlannedColumn, TablePlan } from "./table-plan.ts";

/** Writes the statement of one change into a batch. */
export class RowWriter {
  readonly cache = new StatementCache();
  readonly #encoder = new RowEncoder();

  /**
   * An UPDATE, INSERT or DELETE that must affect one row, and fails by itself if it does not when `checked`; false for an insert
   * whose row was not sent whole.
   */
  row(batch: Batch, plan: TablePlan, change: RowChange, checked = false): boolean {
    const encoder = this.#encoder;
    const write = (kind: string, text: () => StatementText): void =>
      this.#write(batch, plan, kind, text, checked);
    encoder.load(change);
    switch (change.kind) {
      case "insert":
        if (encoder.newImage.incomplete && this.#sent(plan).length < plan.written.length) return false;
        write("insert", () => insertStatement(plan));
        break;
      case "delete":
        write("delete", () => deleteStatement(plan));
        break;
      case "update": {
        const keyImage = keyImageOf(change);
        write(`update ${keyImage} ${encoder.unsentMask()}`, () =>
          updateStatement(plan, this.#sent(plan), keyImage),
        );
        break;
      }
    }
    return true;
  }

  /** The UPDATE as delete and insert: see `rewriteStatement`. */
  rewrite(batch: Batch, plan: TablePlan, change: RowChange): void {
    this.#encoder.load(change);
    this.#once(batch, rewriteStatement(plan, this.#sent(plan), keyImageOf(change)));
  }

  /** Deletes the row that the old image names, whatever the kind of the change. */
  remove(batch: Batch, plan: TablePlan, change: RowChange, checked = false): void {
    this.#encoder.load(change);
    this.#write(batch, plan, "delete", () => deleteStatement(plan), checked);
  }

  /** An update's new image as an insert: only when it is complete. */
  newRow(batch: Batch, plan: TablePlan, change: RowChange, checked = false): void {
    this.#encoder.load(change);
    this.#write(batch, plan, "insert", () => insertStatement(plan), checked);
  }

  /** An insert's image as an update of the row that is there already. */
  overwrite(batch: Batch, plan: TablePlan, change: RowChange): void {
    this.#encoder.load(change);
    this.#write(batch, plan, "update new ", () => updateStatement(plan, plan.written, "new"));
  }

  /** Whether every column to write was sent. */
  isComplete(plan: TablePlan, change: RowChange): boolean {
    this.#encoder.load(change);
    return this.#sent(plan).length === plan.written.length;
  }

  /** See RowEncoder. */
  unsentMask(change: RowChange): string {
    this.#encoder.load(change);
    return this.#encoder.unsentMask();
  }

  /** The columns to write that were sent. */
  sentColumns(plan: TablePlan, change: RowChange): PlannedColumn[] {
    this.#encoder.load(change);
    return this.#sent(plan);
  }

  /** Selects something made of the key of the change, such as a row for a table of conflicts. */
  withKey(batch: Batch, plan: TablePlan, change: RowChange, statement: (key: string) => string): void {
    this.#encoder.load(change);
    const parameters = new Parameters();
    const image = change.oldStart >= 0 ? "old" : "new";
    this.#once(batch, parameters.done(statement(keyAsJson(plan, image, parameters))));
  }

  /** False when a table would be emptied of rows that the source has not truncated: those of its other partitions. */
  truncate(batch: Batch, plans: readonly TablePlan[], change: TruncateChange): boolean {
    const whole = plans.every(
      (plan) => plan.sharedBy === plans.filter(({ label }) => label === plan.label).length,
    );
    if (!whole) return false;
    if (change.asDelete) {
      this.deleteAll(batch, plans);
      return true;
    }
    batch.parse("", truncateStatement(plans, change.restartIdentity), []);
    batch.bindExecute("", []);
    return true;
  }

  /** What TRUNCATE does, where the target does not let it: row by row, without restarting sequences. */
  deleteAll(batch: Batch, plans: readonly TablePlan[]): void {
    for (const sql of deleteAllStatements(plans)) {
      batch.parse("", sql, []);
      batch.bindExecute("", []);
    }
  }

  #sent(plan: TablePlan): PlannedColumn[] {
    return plan.written.filter((column) => this.#encoder.isSent("new", column.index));
  }

  #write(batch: Batch, plan: TablePlan, kind: string, text: () => StatementText, checked = false): void {
    const prepared = this.cache.get(batch, plan, kind, text, checked ? ofOneRow : undefined);
    this.#encoder.write(batch, prepared.name, prepared.parameters);
  }

  #once(batch: Batch, text: StatementText): void {
    batch.parse("", text.sql, text.types);
    this.#encoder.write(batch, "", text.parameters);
  }
}

function keyImageOf(change: RowChange): "new" | "old" {
  return change.oldStart >= 0 ? "old" : "new";
}
