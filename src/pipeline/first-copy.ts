import { randomUUID } from "node:crypto";
import { copyWaves } from "../copy/waves.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { readReferences, tableKey, tableLabel } from "../postgres/catalog.ts";
import type { ReplicatedTable } from "../postgres/selection.ts";
import { quoteQualified } from "../quote/ident.ts";
import type { PipelineContext } from "./context.ts";
import { CopyJobs, type CopyProgress } from "./copy-jobs.ts";
import type { OpenPipeline } from "./open-pipeline.ts";
import { copiedTables } from "./table-states.ts";

/** Rows that are there before the first copy: refused; accepted when they equal the source's; made equal to them. */
export type WhenOccupied = "refuse" | "adopt" | "reconcile";

export interface FirstCopyOptions {
  /** What to do about tables that have rows already. */
  readonly occupied: WhenOccupied;
  /** Only these of the source's tables, by `tableKey`; undefined is all. */
  readonly only?: ReadonlySet<string> | undefined;
  readonly signal: AbortSignal;
  /** Called once, when there is something to copy and before it begins. */
  readonly onStart: () => Promise<void>;
  readonly onProgress: (progress: CopyProgress) => void;
}

/** What the first copy will refuse without `--adopt`, before anything is copied; undefined when nothing. */
export async function occupiedProblem(open: OpenPipeline): Promise<ErserverError | undefined> {
  const occupied = await occupiedTables(open, await pendingTables(open));
  return occupied.length === 0 ? undefined : notEmpty(occupied);
}

async function pendingTables(open: OpenPipeline, only?: ReadonlySet<string>): Promise<ReplicatedTable[]> {
  const copied = copiedTables(await open.store.tableStates());
  return open.selection.tables.filter(({ source }) => {
    const key = tableKey(source.schema, source.name);
    return !copied.has(key) && only?.has(key) !== false;
  });
}

/**
 * Fills the tables that are not copied yet, several at once, from one snapshot. The first time it is the
 * snapshot that the changes begin at; later (after a crash, or for tables that joined) another one, and
 * what it has is then left out of the changes of these tables.
 */
export async function firstCopy(
  context: PipelineContext,
  open: OpenPipeline,
  options: FirstCopyOptions,
): Promise<void> {
  const pending = await pendingTables(open, options.only);
  if (pending.length === 0) return;
  const occupied = await occupiedTables(open, pending);
  if (occupied.length > 0 && options.occupied === "refuse") throw notEmpty(occupied);

  await options.onStart();
  const waves = await wavesOf(open, pending);
  const { snapshot, holder } = await open.changes.takeSnapshot(open.progress);
  try {
    const token = randomUUID();
    for (const table of pending) await open.store.claimCopy(table.source, token);
    const { signal, onProgress } = options;
    const reconcile = options.occupied === "reconcile";
    const plan = { occupied: new Set(occupied), reconcile, snapshot, token, signal, onProgress };
    await new CopyJobs(context, open, plan).run(waves);
  } finally {
    await holder.end();
  }
}

/** All at once where foreign keys of the target do not fire; else those that others refer to first. */
async function wavesOf(open: OpenPipeline, tables: readonly ReplicatedTable[]): Promise<ReplicatedTable[][]> {
  if (open.session.replicaRole) return [[...tables]];
  return copyWaves(
    tables,
    ({ target }) => tableKey(target.schema, target.name),
    await readReferences(open.control),
  );
}

/**
 * Labels of the target tables that have rows; nothing is ever removed from them. A target that some partition was
 * copied into already is one that this pipeline found empty.
 */
async function occupiedTables(open: OpenPipeline, pending: readonly ReplicatedTable[]): Promise<string[]> {
  const names = new Map(pending.map(({ target }) => [tableLabel(target.schema, target.name), target]));
  for (const table of open.selection.tables) {
    if (!pending.includes(table)) names.delete(tableLabel(table.target.schema, table.target.name));
  }
  const occupied: string[] = [];
  for (const [label, { schema, name }] of names) {
    const partitioned = open.targetTables.get(tableKey(schema, name))?.partitioned === true;
    const [row] = await open.control.query(
      `select exists (select 1 from ${partitioned ? "" : "only "}${quoteQualified(schema, name)})::text as occupied`,
    );
    if (row?.["occupied"] === "true") occupied.push(label);
  }
  return occupied;
}

function notEmpty(labels: readonly string[]): ErserverError {
  const list = labels.join(", ");
  return new ErserverError(
    "ERS-404",
    `${labels.length === 1 ? "table" : "tables"} ${list} of the target ${labels.length === 1 ? "has" : "have"} rows before the first copy`,
    {
      subject: list,
      remedy: `If the rows equal the source's: erserver run --adopt. If nobody needs them: TRUNCATE ${list}; on the target (DELETE where other tables refer to them), then erserver run.`,
    },
  );
}
