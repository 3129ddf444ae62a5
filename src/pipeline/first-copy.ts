import { randomUUID } from "node:crypto";
import { becomeReplica, writerSettings } from "../apply/target-session.ts";
import { copiedColumns, copyTable, recordCopy } from "../copy/table-copy.ts";
import { openSnapshotReader } from "../copy/snapshot-reader.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { type CatalogTable, tableKey, tableLabel } from "../postgres/catalog.ts";
import type { ReplicatedTable } from "../postgres/selection.ts";
import { createSlot, createTemporarySlot, dropSlot, type ExportedSnapshot } from "../postgres/slots.ts";
import { connectWatched } from "../postgres/watchdog.ts";
import { hashTable, sameHash } from "../postgres/table-hash.ts";
import { quoteQualified } from "../quote/ident.ts";
import type { WireConnection } from "../wire/connection.ts";
import { connectReplication } from "./connect-replication.ts";
import type { OpenPipeline, PipelineContext } from "./open-pipeline.ts";

export interface CopyProgress {
  readonly tablesDone: number;
  readonly tablesTotal: number;
  readonly bytesDone: number;
  /** Size of the tables on the source: an estimate of what will be relayed. */
  readonly bytesTotal: number;
  readonly rowsDone: number;
}

export interface FirstCopyOptions {
  /** Accept tables that have rows already when they equal the source's. */
  readonly adopt: boolean;
  readonly signal: AbortSignal;
  /** Called once, when there is something to copy and before it begins. */
  readonly onStart: () => Promise<void>;
  readonly onProgress: (progress: CopyProgress) => void;
}

/** Makes the slot and records where it starts. Its snapshot is valid until the returned connection is used again. */
export async function createPipelineSlot(
  context: PipelineContext,
  open: OpenPipeline,
): Promise<{ snapshot: ExportedSnapshot; holder: WireConnection }> {
  // The registration says that a slot of this name is ours; without progress it is one whose creation was not recorded.
  await dropSlot(open.source, open.slot);
  const holder = await connectReplication(context);
  try {
    const snapshot = await createSlot(holder, open.slot, { temporary: false });
    await open.store.startProgress(snapshot.consistentPoint);
    return { snapshot, holder };
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
  const states = new Map(
    (await open.store.tableStates()).map((state) => [tableKey(state.schema, state.name), state]),
  );
  const pending = open.selection.tables.filter(({ source }) => {
    const state = states.get(tableKey(source.schema, source.name))?.state;
    return state === undefined || state === "init" || state === "data_sync";
  });
  if (pending.length === 0) return;
  const occupied = await occupiedTables(open, pending);
  if (occupied.length > 0 && !options.adopt) throw notEmpty(occupied);

  await options.onStart();
  const { snapshot, holder } = await takeSnapshot(context, open);
  try {
    const token = randomUUID();
    for (const table of pending) await open.store.claimCopy(table.source, token);
    await copyAll(context, open, options, { pending, occupied: new Set(occupied), snapshot, token });
  } finally {
    await holder.end();
  }
}

/** The snapshot and the connection that keeps it. */
async function takeSnapshot(
  context: PipelineContext,
  open: OpenPipeline,
): Promise<{ snapshot: ExportedSnapshot; holder: WireConnection }> {
  if (open.progress === undefined) return createPipelineSlot(context, open);
  const holder = await connectReplication(context);
  try {
    return { snapshot: await createTemporarySlot(holder, open.slot, "copy"), holder };
  } catch (error) {
    holder.destroy();
    throw error;
  }
}

interface CopyPlan {
  readonly pending: readonly ReplicatedTable[];
  readonly occupied: ReadonlySet<string>;
  readonly snapshot: ExportedSnapshot;
  readonly token: string;
}

async function copyAll(
  context: PipelineContext,
  open: OpenPipeline,
  options: FirstCopyOptions,
  plan: CopyPlan,
): Promise<void> {
  // Largest first, so that the last job to end is not the longest.
  const queue = plan.pending.toSorted((a, b) => b.source.bytes - a.source.bytes);
  let bytesDone = 0;
  let rowsDone = 0;
  let tablesDone = open.selection.tables.length - queue.length;
  const bytesTotal = queue.reduce((sum, table) => sum + table.source.bytes, 0);
  const report = (): void =>
    options.onProgress({
      tablesDone,
      tablesTotal: open.selection.tables.length,
      bytesDone,
      bytesTotal,
      rowsDone,
    });
  report();

  const failed = new AbortController();
  const job = async (): Promise<void> => {
    const source = await openSnapshotReader(context.config.source, plan.snapshot.snapshotName, {
      pipeline: context.target.name,
      timeoutMs: context.config.timeoutMs,
    });
    const target = await openCopyWriter(context, open).catch((error: unknown) => {
      source.destroy();
      throw error;
    });
    const abandon = (): void => {
      source.destroy();
      target.destroy();
    };
    const enough = AbortSignal.any([options.signal, failed.signal]);
    enough.addEventListener("abort", abandon);
    if (enough.aborted) abandon();
    try {
      for (let table = queue.shift(); table !== undefined; table = queue.shift()) {
        const label = tableLabel(table.target.schema, table.target.name);
        if (plan.occupied.has(label)) await adoptTable(source, target, table, open, plan);
        else {
          const rows = await copyTable({
            source,
            target,
            table,
            targetTable: targetTableOf(open, table),
            pipeline: context.target.name,
            token: plan.token,
            copyLsn: plan.snapshot.consistentPoint,
            binary: context.config.binary !== "off",
            onBytes: (bytes) => {
              bytesDone += bytes;
              report();
            },
          });
          rowsDone += rows;
        }
        tablesDone++;
        report();
      }
      await source.end();
      await target.end();
    } catch (error) {
      abandon();
      throw error;
    } finally {
      enough.removeEventListener("abort", abandon);
    }
  };
  const jobs = Array.from({ length: Math.min(context.config.copyJobs, queue.length) }, async () => {
    // The first failure is the cause; the others are abandoned because of it.
    await job().catch((error: unknown) => failed.abort(error));
  });
  await Promise.all(jobs);
  failed.signal.throwIfAborted();
}

/** Accepts what the target table has when it equals the snapshot. */
async function adoptTable(
  source: WireConnection,
  target: WireConnection,
  table: ReplicatedTable,
  open: OpenPipeline,
  plan: CopyPlan,
): Promise<void> {
  const targetTable = targetTableOf(open, table);
  const names = copiedColumns(table, targetTable);
  const columns = table.source.columns.filter((column) => names.includes(column.name));
  const [wanted, found] = await Promise.all([
    hashTable(source, { ...table.source, columns, where: table.where }),
    hashTable(target, { ...targetTable, columns }),
  ]);
  const label = tableLabel(targetTable.schema, targetTable.name);
  if (!sameHash(wanted, found)) {
    throw new ErserverError(
      "ERS-405",
      `${label} on the target (${found.rows} rows) differs from the source (${wanted.rows} rows)`,
      {
        subject: label,
        remedy: `Empty it on the target (TRUNCATE ${label}) to have it copied, or make it equal, and start erserver again.`,
      },
    );
  }
  await recordCopy(
    target,
    { pipeline: open.store.pipeline, table, token: plan.token, copyLsn: plan.snapshot.consistentPoint },
    found.rows,
  );
}

async function openCopyWriter(context: PipelineContext, open: OpenPipeline): Promise<WireConnection> {
  const target = await connectWatched(context.target.conninfo, {
    applicationName: `erserver ${context.target.name} copy`,
    settings: writerSettings(context.config.timeoutMs, open.targetFacts.version),
    timeoutMs: context.config.timeoutMs,
  });
  await becomeReplica(target);
  return target;
}

function targetTableOf(open: OpenPipeline, { target }: ReplicatedTable): CatalogTable {
  return open.targetTables.get(tableKey(target.schema, target.name)) as CatalogTable;
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
    const [row] = await open.control.query(
      `select exists (select 1 from ${quoteQualified(schema, name)})::text as occupied`,
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
      remedy: `If the rows equal the source's: erserver run --adopt. If nobody needs them: TRUNCATE ${list}; on the target, then erserver run.`,
    },
  );
}
