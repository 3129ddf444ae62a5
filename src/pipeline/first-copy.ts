import { randomUUID } from "node:crypto";
import { copyWaves } from "../copy/waves.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { readReferences, tableKey, tableLabel } from "../postgres/catalog.ts";
import type { ReplicatedTable } from "../postgres/selection.ts";
import {
  abandonSlot,
  createSlot,
  createTemporarySlot,
  dropSlot,
  type ExportedSnapshot,
} from "../postgres/slots.ts";
import { quoteQualified } from "../quote/ident.ts";
import { onAbort } from "../runtime/abort.ts";
import type { WireConnection } from "../wire/connection.ts";
import { connectReplication } from "./connect-replication.ts";
import type { PipelineContext } from "./context.ts";
import { CopyJobs, type CopyProgress } from "./copy-jobs.ts";
import type { OpenPipeline } from "./open-pipeline.ts";
import { copiedTables } from "./table-states.ts";

export interface FirstCopyOptions {
  /** Accept tables that have rows already when they equal the source's. */
  readonly adopt: boolean;
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

async function pendingTables(open: OpenPipeline): Promise<ReplicatedTable[]> {
  const copied = copiedTables(await open.store.tableStates());
  return open.selection.tables.filter(({ source }) => !copied.has(tableKey(source.schema, source.name)));
}

/** A snapshot of the source and the connection that keeps it. */
interface HeldSnapshot {
  readonly snapshot: ExportedSnapshot;
  readonly holder: WireConnection;
}

/** Makes the slot and records where it starts. Its snapshot is valid until the returned connection is used again. */
export async function createPipelineSlot(
  context: PipelineContext,
  open: OpenPipeline,
): Promise<HeldSnapshot> {
  // The registration says that a slot of this name is ours; without progress it is one whose creation was not recorded.
  await dropSlot(open.source, open.slot);
  return holdSnapshot(context, open, async (holder) => {
    const snapshot = await createSlot(holder, open.slot, { temporary: false });
    await open.store.startProgress(snapshot.consistentPoint);
    return snapshot;
  });
}

/** `create` waits for every transaction that runs on the source: for as long as anybody likes, but not longer than we do. */
async function holdSnapshot(
  context: PipelineContext,
  open: OpenPipeline,
  create: (holder: WireConnection) => Promise<ExportedSnapshot>,
): Promise<HeldSnapshot> {
  const holder = await connectReplication(context);
  using _giveUp = onAbort(context.signal, () => void abandonSlot(open.source, holder));
  try {
    return { snapshot: await create(holder), holder };
  } catch (error) {
    holder.destroy();
    throw error;
  }
}

/**
 * Fills the tables that are not copied yet, several at once, from one snapshot. The first time it is the
 * snapshot that the slot starts at; later (after a crash, or for tables that joined) one of a temporary slot, and
 * the stream then skips, for these tables, what the snapshot has.
 */
export async function firstCopy(
  context: PipelineContext,
  open: OpenPipeline,
  options: FirstCopyOptions,
): Promise<void> {
  const pending = await pendingTables(open);
  if (pending.length === 0) return;
  const occupied = await occupiedTables(open, pending);
  if (occupied.length > 0 && !options.adopt) throw notEmpty(occupied);

  await options.onStart();
  const waves = await wavesOf(open, pending);
  const { snapshot, holder } = await takeSnapshot(context, open);
  try {
    const token = randomUUID();
    for (const table of pending) await open.store.claimCopy(table.source, token);
    const { signal, onProgress } = options;
    const plan = { occupied: new Set(occupied), snapshot, token, signal, onProgress };
    await new CopyJobs(context, open, plan).run(waves);
  } finally {
    await holder.end();
  }
}

async function takeSnapshot(context: PipelineContext, open: OpenPipeline): Promise<HeldSnapshot> {
  if (open.progress === undefined) return createPipelineSlot(context, open);
  try {
    return await holdSnapshot(context, open, (holder) => createTemporarySlot(holder, open.slot, "copy"));
  } catch (error) {
    if (!(error instanceof ErserverError) || error.code !== "ERS-303") throw error;
    // It worked before: perhaps the source has not noticed yet that our last session, with its slot, is dead.
    throw new ErserverError("ERS-206", error.message, {
      subject: open.slot,
      remedy: error.remedy,
      cause: error,
    });
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
