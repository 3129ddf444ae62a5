import type { Batch } from "../wire/batch.ts";
import type { StatementText } from "./statements.ts";
import type { TablePlan } from "./table-plan.ts";

/** A statement that is, or will be, prepared in the applier's session. */
export interface Prepared extends StatementText {
  readonly name: string;
  isPrepared: boolean;
  lastUse: number;
}

/** Makes a statement fail by itself: see ofOneRow and ofAllRows. */
export type Check = (statement: StatementText) => StatementText;

/** What the server keeps for a prepared statement is some 10-20 kB: a few thousand tables must not fill its memory. */
const MOST_STATEMENTS = 1_000;

/**
 * The prepared statements of one session, by table plan and kind. Past `MOST_STATEMENTS` the quarter that was not used for
 * longest is closed.
 */
export class StatementCache {
  #byPlan = new WeakMap<TablePlan, Map<string, Prepared>>();
  #all = new Set<Prepared>();
  #counter = 0;

  /**
   * Writes Parse into the batch when the statement is not prepared yet; undefined when there is no such statement. What `check` makes
   * of it, always the same for one kind, is a statement of its own.
   */
  get(batch: Batch, plan: TablePlan, kind: string, text: () => StatementText, check?: Check): Prepared;
  get(
    batch: Batch,
    plan: TablePlan,
    kind: string,
    text: () => StatementText | undefined,
    check?: Check,
  ): Prepared | undefined;
  get(
    batch: Batch,
    plan: TablePlan,
    kind: string,
    text: () => StatementText | undefined,
    check?: Check,
  ): Prepared | undefined {
    const name = check === undefined ? kind : `${kind} checked`;
    let statements = this.#byPlan.get(plan);
    if (statements === undefined) {
      statements = new Map();
      this.#byPlan.set(plan, statements);
    }
    let prepared = statements.get(name);
    if (prepared === undefined) {
      const made = text();
      if (made === undefined) return undefined;
      prepared = { ...(check?.(made) ?? made), name: `e${++this.#counter}`, isPrepared: false, lastUse: 0 };
      statements.set(name, prepared);
    }
    prepared.lastUse = ++this.#counter;
    if (!prepared.isPrepared) {
      if (this.#all.size >= MOST_STATEMENTS) this.#evict(batch);
      batch.parse(prepared.name, prepared.sql, prepared.types);
      prepared.isPrepared = true;
      this.#all.add(prepared);
    }
    return prepared;
  }

  /** A batch failed: which of its statements were prepared is unknown. DEALLOCATE ALL makes both sides agree again. */
  forgetAll(): void {
    for (const prepared of this.#all) prepared.isPrepared = false;
    this.#all.clear();
  }

  #evict(batch: Batch): void {
    const oldest = [...this.#all].toSorted((a, b) => a.lastUse - b.lastUse).slice(0, MOST_STATEMENTS / 4);
    for (const prepared of oldest) {
      batch.closeStatement(prepared.name);
      prepared.isPrepared = false;
      this.#all.delete(prepared);
    }
  }
}
