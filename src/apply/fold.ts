import { type Change, RowChange } from "../change/change.ts";
import type { Group } from "../change/group.ts";
import { withColumnsOf } from "../change/merge.ts";
import type { Relation } from "../change/relation.ts";
import type { Transaction } from "../change/transaction.ts";
import { COLUMN_BINARY, COLUMN_TEXT, TupleReader } from "../change/tuple.ts";
import type { TablePlan } from "./table-plan.ts";

/** What a run of changes comes to, for one table. Rows are the images of changes; no two are of one row. */
export interface NetChanges {
  readonly plan: TablePlan;
  /** Found by their old image. */
  readonly deletes: readonly RowChange[];
  /** Found by the key in their new image, which did not change. */
  readonly updates: readonly RowChange[];
  /** Complete new images, whatever the kind of the change. */
  readonly inserts: readonly RowChange[];
}

/** A part of a group that is written together, or one change that nothing may pass. */
export type Step =
  /** All deletes come first, then updates, then inserts: a row may move from one table to another. */
  | { readonly kind: "net"; readonly tables: readonly NetChanges[] }
  | { readonly kind: "change"; readonly change: Change; readonly transaction: Transaction };

/**
 * Folds the changes of a group into net changes: of several changes of a row the last one counts, what was inserted and deleted
 * again vanishes, a changed key is a delete and an insert. Undefined when the changes do not fit together, as the source cannot have
 * made them: row by row it will show what is wrong.
 */
export function fold(group: Group, planOf: (relation: Relation) => TablePlan): readonly Step[] | undefined {
  const steps: Step[] = [];
  let tables = new Map<TablePlan, TableFold>();
  let serial: Step[] = [];
  let relation: Relation | undefined;
  let table: TableFold | undefined;
  const close = (): void => {
    if (tables.size > 0) steps.push({ kind: "net", tables: [...tables.values()].map((one) => one.net()) });
    steps.push(...serial);
    tables = new Map();
    serial = [];
    relation = undefined;
  };
  let index = 0;
  for (const { transaction, end } of group.members) {
    for (; index < end; index++) {
      const change = group.changes[index] as Change;
      if (!(change instanceof RowChange)) {
        close();
        steps.push({ kind: "change", change, transaction });
        continue;
      }
      if (change.relation !== relation || table === undefined) {
        relation = change.relation;
        const plan = planOf(relation);
        table = tables.get(plan) ?? new TableFold(plan);
        tables.set(plan, table);
      }
      // Rows without a key: no other table's changes have to do with them.
      if (table.plan.wholeRow) {
        serial.push({ kind: "change", change, transaction });
        continue;
      }
      const outcome = table.add(change);
      if (outcome === "contradiction") return undefined;
      if (outcome === "folded") continue;
      close();
      steps.push({ kind: "change", change, transaction });
    }
  }
  close();
  return steps;
}

/** What has become of one row. */
interface NetRow {
  /** The change that first took away the row that was there before, undefined when none did. */
  removed: RowChange | undefined;
  /** It was there before, and has not been taken away. */
  existed: boolean;
  /** Its image now, undefined when it is not there. */
  current: RowChange | undefined;
}

type Outcome = "folded" | "in place" | "contradiction";

class TableFold {
  readonly plan: TablePlan;
  /** Where in the row image the key is, in ascending order. */
  readonly #key: Int32Array;
  readonly #reader = new TupleReader();
  /** As long as rows are only inserted, or only deleted, none can be one of the others. */
  #run: RowChange[] = [];
  #rows: Map<string, NetRow> | undefined;

  constructor(plan: TablePlan) {
    this.plan = plan;
    this.#key = Int32Array.from(plan.key, ({ index }) => index).toSorted();
  }

  add(change: RowChange): Outcome {
    const run = this.#run;
    const { kind } = run[0] ?? change;
    if (this.#rows === undefined && kind === change.kind && kind !== "update") {
      if (change.lacksColumns) return "contradiction";
      run.push(change);
      return "folded";
    }
    const rows = (this.#rows ??= this.#index());
    return rows === undefined ? "contradiction" : this.#fold(rows, change);
  }

  net(): NetChanges {
    const run = this.#run;
    const areDeletes = run[0]?.kind === "delete";
    const deletes = areDeletes ? run : [];
    const updates: RowChange[] = [];
    const inserts = areDeletes ? [] : run;
    for (const { removed, existed, current } of this.#rows?.values() ?? []) {
      if (removed !== undefined) deletes.push(removed);
      if (current !== undefined) (existed ? updates : inserts).push(current);
    }
    return { plan: this.plan, deletes, updates, inserts };
  }

  #fold(rows: Map<string, NetRow>, change: RowChange): Outcome {
    if (change.kind === "delete") return this.#delete(rows, change);
    if (change.kind === "update") return this.#update(rows, change);
    return this.#place(rows, this.#keyOf(change, change.newStart), change);
  }

  /** Puts a row where none is. A row filter that lets a row in sends only what changed of it. */
  #place(rows: Map<string, NetRow>, key: string | undefined, change: RowChange): Outcome {
    if (key === undefined || change.lacksColumns) return "contradiction";
    const row = rows.get(key);
    if (row === undefined) rows.set(key, { removed: undefined, existed: false, current: change });
    else if (row.current === undefined) row.current = change;
    else return "contradiction";
    return "folded";
  }

  #delete(rows: Map<string, NetRow>, change: RowChange): Outcome {
    const key = this.#keyOf(change, change.oldStart);
    if (key === undefined) return "contradiction";
    const row = rows.get(key);
    if (row === undefined) rows.set(key, { removed: change, existed: false, current: undefined });
    else if (row.current === undefined) return "contradiction";
    else if (row.existed) {
      row.removed = change;
      row.existed = false;
      row.current = undefined;
    } else if (row.removed === undefined) rows.delete(key);
    else row.current = undefined;
    return "folded";
  }

  #update(rows: Map<string, NetRow>, change: RowChange): Outcome {
    const newKey = this.#keyOf(change, change.newStart);
    const oldKey = change.oldStart < 0 ? newKey : this.#keyOf(change, change.oldStart);
    // An unchanged key that is too large was not sent.
    if (newKey === undefined || oldKey === undefined) return "in place";
    const row = rows.get(oldKey);
    if (row !== undefined && row.current === undefined) return "contradiction";
    const current = row?.current === undefined ? change : withColumnsOf(change, row.current);
    if (oldKey === newKey) {
      if (row === undefined) rows.set(newKey, { removed: undefined, existed: true, current });
      else row.current = current;
      return "folded";
    }
    // What only the target has of the row, or the source did not send, would be lost.
    if (this.plan.hasColumnsOfItsOwn || current.lacksColumns) return "in place";
    const deleted = this.#delete(rows, change);
    return deleted === "folded" ? this.#place(rows, newKey, current) : deleted;
  }

  /** Undefined when a row was inserted, or deleted, that had been already. */
  #index(): Map<string, NetRow> | undefined {
    const rows = new Map<string, NetRow>();
    for (const change of this.#run) if (this.#fold(rows, change) !== "folded") return undefined;
    this.#run = [];
    return rows;
  }

  /**
   * The key's bytes, which tell rows apart: the source names a row by the bytes that it has. Undefined when a part is NULL or
   * was not sent.
   */
  #keyOf({ bytes }: RowChange, start: number): string | undefined {
    const reader = this.#reader.reset(bytes, start);
    let text = "";
    let column = 0;
    for (const index of this.#key) {
      for (; column <= index; column++) reader.next();
      if (reader.kind !== COLUMN_BINARY && reader.kind !== COLUMN_TEXT) return undefined;
      const value = bytes.toString("latin1", reader.start, reader.start + reader.length);
      text = this.#key.length === 1 ? value : `${text}${reader.length} ${value}`;
    }
    return text;
  }
}
