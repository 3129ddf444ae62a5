import { becomeReplica, writerSettings } from "../apply/target-session.ts";
import { lockUnchanged, openSnapshotReader } from "../copy/snapshot-reader.ts";
import { copiedColumns, copyTable, recordCopy, type TableCopy } from "../copy/table-copy.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { type CatalogTable, readTableSizes, tableKey, tableLabel } from "../postgres/catalog.ts";
import { type Constraints, readConstraints, type TableConstraints } from "../postgres/constraints.ts";
import { isRewritten } from "../postgres/rewritten.ts";
import type { ReplicatedTable } from "../postgres/selection.ts";
import type { ExportedSnapshot } from "../postgres/slots.ts";
import { hashTable, sameHash } from "../postgres/table-hash.ts";
import { connectWatched } from "../postgres/watchdog.ts";
import { onAbort } from "../runtime/abort.ts";
import type { WireConnection } from "../wire/connection.ts";
import type { PipelineContext } from "./context.ts";
import type { OpenPipeline } from "./open-pipeline.ts";

export interface CopyProgress {
  readonly tablesDone: number;
  readonly tablesTotal: number;
  readonly bytesDone: number;
  /** Size of the tables on the source: an estimate of what will be relayed. */
  readonly bytesTotal: number;
  readonly rowsDone: number;
}

export interface CopyPlan {
  /** Labels of target tables whose rows are to be compared instead of copied. */
  readonly occupied: ReadonlySet<string>;
  /** Their rows are made equal to the source's where they differ. */
  readonly reconcile: boolean;
  readonly snapshot: ExportedSnapshot;
  /** Proof that this copy is the one that was claimed last. */
  readonly token: string;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: CopyProgress) => void;
}

/** Copies tables from one snapshot, `copy.jobs` at a time. */
export class CopyJobs {
  readonly #context: PipelineContext;
  readonly #open: OpenPipeline;
  readonly #plan: CopyPlan;
  #progress: CopyProgress;
  #sizes: ReadonlyMap<number, number> = new Map();
  readonly #catalogues: TableCopy["catalogues"];
  #constraints: Promise<Constraints> | undefined;
  /** Those that were not what the plan says, or that the snapshot does not show as they were. */
  readonly #changed: ReplicatedTable[] = [];

  constructor(context: PipelineContext, open: OpenPipeline, plan: CopyPlan) {
    this.#context = context;
    this.#open = open;
    this.#plan = plan;
    this.#catalogues = {
      source: { session: open.source, version: open.sourceFacts.version },
      target: { session: open.control, version: open.targetFacts.version },
    };
    this.#progress = {
      tablesDone: 0,
      tablesTotal: open.selection.tables.length,
      bytesDone: 0,
      bytesTotal: 0,
      rowsDone: 0,
    };
  }

  /** The waves follow each other; what is in one is copied in any order. */
  async run(waves: readonly (readonly ReplicatedTable[])[]): Promise<void> {
    const tables = waves.flat();
    this.#sizes = await readTableSizes(
      this.#open.source,
      tables.map(({ source }) => source.oid),
    );
    this.#advance({
      tablesDone: this.#progress.tablesTotal - tables.length,
      bytesTotal: tables.reduce((sum, table) => sum + this.#sizeOf(table), 0),
    });
    for (const wave of waves) {
      await this.#runWave(wave);
      // The next wave may refer to rows that are missing now.
      const [first] = this.#changed;
      if (first !== undefined) throw changed(first);
    }
  }

  async #runWave(wave: readonly ReplicatedTable[]): Promise<void> {
    // Largest first, so that the last job to end is not the longest.
    const queue = wave.toSorted((a, b) => this.#sizeOf(b) - this.#sizeOf(a));
    const failed = new AbortController();
    const signal = AbortSignal.any([this.#plan.signal, failed.signal]);
    const jobs = Array.from({ length: Math.min(this.#context.config.copyJobs, queue.length) }, () =>
      // The first failure is the cause; the others are abandoned because of it.
      this.#job(queue, signal).catch((error: unknown) => failed.abort(error)),
    );
    await Promise.all(jobs);
    failed.signal.throwIfAborted();
  }

  async #job(queue: ReplicatedTable[], signal: AbortSignal): Promise<void> {
    const { config, target: named } = this.#context;
    const source = await openSnapshotReader(config.source, this.#plan.snapshot.snapshotName, {
      pipeline: named.name,
      timeoutMs: config.timeoutMs,
    });
    using _source = onAbort(signal, () => source.destroy());
    try {
      const target = await this.#openWriter();
      using _target = onAbort(signal, () => target.destroy());
      try {
        for (let table = queue.shift(); table !== undefined; table = queue.shift()) {
          await this.#fill(source, target, table);
          this.#advance({ tablesDone: this.#progress.tablesDone + 1 });
        }
        await target.end();
      } catch (error) {
        target.destroy();
        throw error;
      }
      await source.end();
    } catch (error) {
      source.destroy();
      throw error;
    }
  }

  async #openWriter(): Promise<WireConnection> {
    const { config, target } = this.#context;
    const connection = await connectWatched(target.conninfo, {
      applicationName: `erserver ${target.name} copy`,
      settings: writerSettings(config.timeoutMs, this.#open.targetFacts.version),
      timeoutMs: config.timeoutMs,
    });
    await becomeReplica(connection);
    return connection;
  }

  async #fill(source: WireConnection, target: WireConnection, table: ReplicatedTable): Promise<void> {
    const { occupied, reconcile, token, snapshot } = this.#plan;
    const hasRows = occupied.has(tableLabel(table.target.schema, table.target.name));
    if (hasRows && (await this.#adopt(source, target, table))) return;
    const rows = await copyTable({
      source,
      target,
      catalogues: this.#catalogues,
      table,
      targetTable: this.#targetTableOf(table),
      pipeline: this.#context.target.name,
      token,
      copyLsn: snapshot.consistentPoint,
      copySnapshot: snapshot.xids,
      binary: this.#context.config.binary !== "off",
      reconcile: hasRows && reconcile ? await this.#uniqueOf(table) : undefined,
      onBytes: (bytes) => this.#advance({ bytesDone: this.#progress.bytesDone + bytes }),
    });
    if (rows === undefined) this.#changed.push(table);
    else this.#advance({ rowsDone: this.#progress.rowsDone + rows });
  }

  /** Accepts what the target table has when it equals the snapshot; false when it does not, and is to be made so. */
  async #adopt(source: WireConnection, target: WireConnection, table: ReplicatedTable): Promise<boolean> {
    if (!(await lockUnchanged(source, this.#catalogues.source, table.source))) {
      this.#changed.push(table);
      return true;
    }
    const targetTable = this.#targetTableOf(table);
    const names = copiedColumns(table, targetTable);
    const columns = table.source.columns.filter((column) => names.includes(column.name));
    const [wanted, found] = await Promise.all([
      hashTable(source, { ...table.source, columns, where: table.where }),
      hashTable(target, { ...targetTable, columns }),
    ]);
    if (await isRewritten(source, table.source.oid)) {
      this.#changed.push(table);
      return true;
    }
    if (!sameHash(wanted, found)) {
      if (this.#plan.reconcile) return false;
      const label = tableLabel(targetTable.schema, targetTable.name);
      throw new ErserverError(
        "ERS-405",
        `${label} on the target (${found.rows} rows) differs from the source (${wanted.rows} rows)`,
        {
          subject: label,
          remedy: `Empty it on the target (TRUNCATE ${label}, or DELETE where other tables refer to it) to have it copied, or make it equal, and start erserver again.`,
        },
      );
    }
    const { token, snapshot } = this.#plan;
    const record = {
      pipeline: this.#context.target.name,
      table,
      token,
      copyLsn: snapshot.consistentPoint,
      copySnapshot: snapshot.xids,
    };
    await recordCopy(target, record, found.rows);
    return true;
  }

  async #uniqueOf(table: ReplicatedTable): Promise<Pick<TableConstraints, "unique">> {
    const { control, targetFacts, session } = this.#open;
    this.#constraints ??= readConstraints(control, targetFacts.version, session.replicaRole);
    const { tables } = await this.#constraints;
    return tables.get(this.#targetTableOf(table).oid) ?? { unique: [] };
  }

  #advance(change: Partial<CopyProgress>): void {
    this.#progress = { ...this.#progress, ...change };
    this.#plan.onProgress(this.#progress);
  }

  #sizeOf({ source }: ReplicatedTable): number {
    return this.#sizes.get(source.oid) ?? 0;
  }

  #targetTableOf({ target }: ReplicatedTable): CatalogTable {
    return this.#open.targetTables.get(tableKey(target.schema, target.name)) as CatalogTable;
  }
}

function changed({ source: { schema, name } }: ReplicatedTable): ErserverError {
  const label = tableLabel(schema, name);
  return new ErserverError(
    "ERS-509",
    `table ${label} was altered, renamed, truncated or rewritten just before it was copied`,
    {
      subject: label,
      remedy: "Nothing to do: the pipeline is opened anew by itself, and copies it from a new snapshot.",
    },
  );
}
