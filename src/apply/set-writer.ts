import type { RowChange } from "../change/change.ts";
import type { Batch } from "../wire/batch.ts";
import type { NetChanges } from "./fold.ts";
import type { RowWriter } from "./row-writer.ts";
import { SetEncoder } from "./set-encoder.ts";
import {
  copyInStatement,
  deleteSet,
  insertSet,
  ofAllRows,
  type StatementText,
  updateSet,
} from "./statements.ts";
import type { TablePlan } from "./table-plan.ts";

/** Bytes to gather before they go to the socket. */
export const FLUSH_BYTES = 128 * 1024;

/** Fewer rows than this are a statement each. */
const FEW_ROWS = 20;

/** Most rows, and bytes of their messages, in the arrays of one statement. */
const SET_ROWS = 5_000;
const SET_BYTES = 1024 * 1024;

/** CopyData frames are about this large. */
const COPY_FRAME_BYTES = 32 * 1024;

export interface SetWriterOptions {
  readonly rows: RowWriter;
  /** Values arrive in binary form, all of them; else all are text. */
  readonly binary: boolean;
  /** A statement for many rows, however few there are. */
  readonly always: boolean;
}

/** A statement that writes many rows of one table, and what writes each where there are few. */
interface SetStatement {
  readonly kind: string;
  /** Undefined where arrays cannot hold the values. */
  readonly text: () => StatementText | undefined;
  /** Writes one row by itself. */
  readonly row: (change: RowChange) => void;
  readonly checked: boolean;
}

/** Writes net changes into a batch: many rows with one statement. */
export class SetWriter {
  readonly #options: SetWriterOptions;
  readonly #encoder = new SetEncoder();
  readonly #fewRows: number;

  constructor(options: SetWriterOptions) {
    this.#options = options;
    this.#fewRows = options.always ? 1 : FEW_ROWS;
  }

  /**
   * `expected` gets the number of rows that each Execute must affect, or return. When `checked` a statement that does not affect
   * all its rows fails by itself.
   */
  async write(
    batch: Batch,
    tables: readonly NetChanges[],
    expected: number[],
    checked: boolean,
  ): Promise<void> {
    const { rows } = this.#options;
    for (const { plan, deletes } of tables) {
      await this.#set(batch, plan, deletes, expected, {
        kind: "delete set",
        text: () => deleteSet(plan),
        row: (change) => rows.remove(batch, plan, change, checked),
        checked,
      });
    }
    for (const { plan, updates } of tables) {
      for (const [mask, alike] of bySentColumns(updates, rows)) {
        await this.#set(batch, plan, alike, expected, {
          kind: `update set ${mask}`,
          text: () => updateSet(plan, rows.sentColumns(plan, alike[0] as RowChange)),
          row: (change) => void rows.row(batch, plan, change, checked),
          checked,
        });
      }
    }
    for (const { plan, inserts } of tables) {
      // COPY cannot fail by itself when a trigger of the target keeps rows out.
      if (!checked) await this.#copy(batch, plan, inserts, expected);
      else
        await this.#set(batch, plan, inserts, expected, {
          kind: "insert set",
          text: () => insertSet(plan),
          row: (change) => rows.newRow(batch, plan, change, checked),
          checked,
        });
    }
  }

  async #set(
    batch: Batch,
    plan: TablePlan,
    changes: readonly RowChange[],
    expected: number[],
    { kind, text, row, checked }: SetStatement,
  ): Promise<void> {
    const { rows, binary } = this.#options;
    const check = checked ? ofAllRows : undefined;
    const prepared =
      changes.length < this.#fewRows ? undefined : rows.cache.get(batch, plan, kind, text, check);
    if (prepared === undefined) return this.#each(batch, changes, expected, row);
    for (let from = 0; from < changes.length && !batch.failed;) {
      const to = chunkEnd(changes, from);
      this.#encoder.writeArrays(batch, prepared.name, prepared.parameters, changes.slice(from, to), binary);
      expected.push(checked ? 1 : to - from);
      from = to;
      if (batch.buffered >= FLUSH_BYTES) await batch.flush();
    }
  }

  async #each(
    batch: Batch,
    changes: readonly RowChange[],
    expected: number[],
    write: (change: RowChange) => void,
  ): Promise<void> {
    for (const change of changes) {
      if (batch.failed) return;
      write(change);
      expected.push(1);
      if (batch.buffered >= FLUSH_BYTES) await batch.flush();
    }
  }

  async #copy(
    batch: Batch,
    plan: TablePlan,
    changes: readonly RowChange[],
    expected: number[],
  ): Promise<void> {
    const { rows, binary } = this.#options;
    if (changes.length < this.#fewRows || plan.written.length === 0)
      return this.#each(batch, changes, expected, (change) => rows.newRow(batch, plan, change));
    const copy = rows.cache.get(batch, plan, "copy", () => ({
      sql: copyInStatement(plan, binary),
      types: [],
      parameters: [],
    }));
    batch.bindExecute(copy.name, []);
    const indexes = plan.written.map(({ index }) => index);
    for (let at = 0; at < changes.length && !batch.failed;) {
      batch.beginCopyData();
      if (at === 0 && binary) this.#encoder.copyHeader(batch.writer);
      const frameEnd = batch.buffered + COPY_FRAME_BYTES;
      while (at < changes.length && batch.buffered < frameEnd)
        this.#encoder.copyRow(batch.writer, changes[at++] as RowChange, indexes, binary);
      batch.endCopyData();
      if (batch.buffered >= FLUSH_BYTES) await batch.flush();
    }
    batch.copyDone();
    expected.push(changes.length);
  }
}

/** Whose unchanged large values were not sent need a statement of their own. */
function bySentColumns(updates: readonly RowChange[], rows: RowWriter): Map<string, RowChange[]> {
  const groups = new Map<string, RowChange[]>();
  let whole: RowChange[] | undefined;
  for (const change of updates) {
    if (!change.lacksColumns && whole !== undefined) {
      whole.push(change);
      continue;
    }
    const mask = rows.unsentMask(change);
    const group = groups.get(mask);
    if (group === undefined) groups.set(mask, [change]);
    else group.push(change);
    if (!change.lacksColumns) whole = groups.get(mask);
  }
  return groups;
}

function chunkEnd(changes: readonly RowChange[], from: number): number {
  let bytes = 0;
  let to = from;
  while (to < changes.length && to - from < SET_ROWS && bytes < SET_BYTES)
    bytes += (changes[to++] as RowChange).size;
  return to;
}
