import type { Writable } from "node:stream";
import {
  type CapturedTable,
  captureTables,
  readRegisteredTables,
  type TableToCapture,
} from "../capture/trigger/captured-tables.ts";
import type { FollowedTable } from "../capture/trigger/changes-query.ts";
import { readConsumer } from "../capture/trigger/consumers.ts";
import { type ExportedXids, exportSnapshot } from "../capture/trigger/export-snapshot.ts";
import {
  markWritten,
  type PreparedSync,
  recordPrepared,
  registerCarrierConsumer,
} from "../capture/trigger/prepared-syncs.ts";
import { parseSnapshot } from "../capture/trigger/snapshot.ts";
import { type SyncSink, TriggerCapture } from "../capture/trigger/trigger-capture.ts";
import { CarrierWriter } from "../carrier/carrier-writer.ts";
import { encrypterFor } from "../carrier/encryption.ts";
import type { CarriedTable, CarrierHeader } from "../carrier/format.ts";
import { type Change, RowChange } from "../change/change.ts";
import type { Lsn } from "../change/lsn.ts";
import type { Transaction } from "../change/transaction.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { tryLock } from "../postgres/advisory-lock.ts";
import { readTables, tableLabels } from "../postgres/catalog.ts";
import { readConstraints } from "../postgres/constraints.ts";
import { requirePrivileges } from "../postgres/privileges.ts";
import { type ReplicatedTable, selectTables } from "../postgres/selection.ts";
import { connectWatched } from "../postgres/watchdog.ts";
import { onAbort } from "../runtime/abort.ts";
import { packageVersion } from "../runtime/version.ts";
import { deferred } from "../wire/deferred.ts";
import {
  carrierSession,
  type CarrierSourceOptions,
  type CarrierSourceSession,
  openCarrierSource,
} from "./carrier-source.ts";
import { throwProblems } from "./read-selection.ts";
import { followedTable, TableShapes, tablesToCapture } from "./trigger-tables.ts";

export interface PrepareCarrierOptions extends CarrierSourceOptions {
  /** An age recipient, `age1…`, to encrypt the file to. */
  readonly recipient?: string | undefined;
  /** Begin where the last file ends, whether or not it is known to be applied. */
  readonly following?: boolean | undefined;
  /** Called now and then. */
  readonly onProgress?: ((progress: { readonly rows: number; readonly bytes: number }) => void) | undefined;
}

export interface PreparedCarrier {
  readonly syncId: number;
  /** The file that has to be applied before; undefined for one that brings all rows of all tables. */
  readonly baseSyncId: number | undefined;
  readonly rows: number;
  /** Of the file. */
  readonly bytes: number;
}

/** Rows between two reports of progress. */
const PROGRESS_ROWS = 10_000;

/**
 * Writes a carrier file of what has changed in the registered tables of the source since the last file that is known to be applied;
 * the first one, and tables that were registered since, with all rows. Undefined, and nothing is written to the output, when nothing
 * has changed. The output is ended; what is in it when this throws is no use to anybody. Throws what keeps the source from it,
 * ERS-607 for a recipient that is none, ERS-612 when the output fails, and an AbortError with the signal.
 */
export async function prepareCarrier(
  options: PrepareCarrierOptions,
  output: Writable,
): Promise<PreparedCarrier | undefined> {
  const encrypter = options.recipient === undefined ? undefined : await encrypterFor(options.recipient);
  await using session = await openCarrierSource(options);
  const plan = await planFile(options, session);
  options.signal.throwIfAborted();
  const snapshot = await exportSnapshot(options.source, carrierSession(options));
  const giveUp = new AbortController();
  const sink = new CarrierSink(
    (preparedAt) =>
      new CarrierWriter(output, {
        header: headerOf(plan, { snapshot: snapshot.xids, preparedAt }),
        relations: plan.followed.map(({ relation }) => relation),
        encrypter,
        signal: AbortSignal.any([options.signal, giveUp.signal]),
      }),
    options.onProgress,
  );
  try {
    return await writeFile(options, session, plan, { sink, snapshot });
  } catch (error) {
    giveUp.abort();
    throw error instanceof ErserverError && error.code === "ERS-509" ? reshaped(error) : error;
  } finally {
    snapshot.holder.destroy();
  }
}

/** What is to be written, but for the rows. */
interface FilePlan {
  readonly sync: number;
  readonly base: PreparedSync | undefined;
  readonly carrier: string;
  readonly name: string;
  readonly source: CarrierHeader["source"];
  readonly tables: readonly ReplicatedTable[];
  /** In the order of `tables`. */
  readonly followed: readonly FollowedTable[];
  readonly shapes: TableShapes;
}

/** Has the source record and keep what this target needs. */
async function planFile(
  { name, following = false }: PrepareCarrierOptions,
  session: CarrierSourceSession,
): Promise<FilePlan> {
  const { source, facts, consumer } = session;
  if (!(await tryLock(source, "prepare", consumer))) throw busy(name);
  const known = await readConsumer(source, consumer);
  if (known !== undefined && known.carrier === undefined) throw servedDirectly(name);
  const { tables, wanted } = await registeredTables(session);
  const captured = await captureTables(source, wanted);
  const { carrier, confirmed, prepared } = await registerCarrierConsumer(source, {
    pipeline: consumer,
    name,
    tables: captured.map(({ id }) => id),
  });
  const sources = tables.map((table) => table.source);
  return {
    sync: Math.max(confirmed ?? 0, prepared.at(-1)?.sync ?? 0) + 1,
    base: prepared.findLast(({ sync, written }) => sync === confirmed || (following && written)),
    carrier,
    name,
    source: {
      systemIdentifier: facts.systemIdentifier,
      database: facts.database,
      databaseOid: facts.databaseOid,
      version: facts.versionText,
    },
    tables,
    followed: await readFollowed(session, tables, captured),
    shapes: await TableShapes.read(source, sources),
  };
}

function headerOf(
  { sync, base, carrier, name, source, tables, followed }: FilePlan,
  { snapshot, preparedAt }: Pick<CarrierHeader, "snapshot" | "preparedAt">,
): CarrierHeader {
  return {
    erserver: packageVersion(),
    source,
    name,
    carrier,
    sync,
    base: base?.sync ?? null,
    snapshot,
    baseSnapshot: base?.snapshot ?? null,
    preparedAt,
    encoding: "UTF8",
    tables: tables.map((table, index): CarriedTable => ({
      ...table,
      rewrites: followed[index]?.rewrites === true,
    })),
  };
}

async function writeFile(
  options: PrepareCarrierOptions,
  { source, consumer }: CarrierSourceSession,
  { sync, base, followed, shapes }: FilePlan,
  { sink, snapshot: { snapshotName, xids } }: { readonly sink: CarrierSink; readonly snapshot: ExportedXids },
): Promise<PreparedCarrier | undefined> {
  const { signal } = options;
  await using capture = new TriggerCapture({
    connection: await connectWatched(options.source, carrierSession(options)),
    tables: followed.map((table) => ({
      table,
      base: base?.tables.includes(table.id) === true ? parseSnapshot(base.snapshot) : undefined,
    })),
    rest: undefined,
    startLsn: BigInt(sync - 1) as Lsn,
    sink,
    // Any version reads text.
    binary: false,
    toSnapshot: snapshotName,
    requireUnchanged: (oids) => shapes.requireUnchanged(oids),
    onDurable: () => {},
    settle: async () => {},
  });
  using _aborted = onAbort(signal, () => sink.fail(signal.reason as Error));
  const writer = await Promise.race([sink.delivered, capture.failed]);
  if (writer === undefined) return undefined;
  // Before the file's end: none is ever whole whose number the source does not know.
  await recordPrepared(source, consumer, { sync, snapshot: xids, tables: followed.map(({ id }) => id) });
  await writer.finish();
  await markWritten(source, consumer, sync);
  return { syncId: sync, baseSyncId: base?.sync, rows: writer.rows, bytes: writer.bytes };
}

/** What is asked for by itself, as it is now. */
async function registeredTables({ source, facts }: CarrierSourceSession): Promise<{
  readonly tables: readonly ReplicatedTable[];
  readonly wanted: TableToCapture[];
}> {
  const registered = new Map((await readRegisteredTables(source)).map((table) => [table.oid, table]));
  if (registered.size === 0) throw nothingRegistered();
  const catalog = (await readTables(source, facts.version)).filter(({ oid }) => registered.has(oid));
  const gone = [...registered.values()].filter(({ oid }) => !catalog.some((table) => table.oid === oid));
  if (gone.length > 0) throw tablesGone(gone);
  const all = { schema: "*", table: "*", columns: undefined, where: undefined };
  const rules = {
    include: [all],
    exclude: [],
    publishViaPartitionRoot: true,
    withoutKey: "refresh",
  } as const;
  const selection = selectTables(catalog, rules, facts.version, "trigger");
  // One that nobody can record, such as an unlogged one, would be left out: it was asked for by its name.
  throwProblems(selection.problems);
  requirePrivileges({
    side: "source",
    role: facts.user,
    tables: selection.tables.map((table) => table.source),
  });
  const input = { source, sourceFacts: facts, selection };
  const wanted = await tablesToCapture(input);
  return {
    tables: selection.tables,
    // Should it be recorded anew, it is still asked for.
    wanted: wanted.map((table) => ({
      ...table,
      columns: registered.get(table.table.oid)?.columns ?? null,
      registered: true,
    })),
  };
}

/** In the selection's order. What the target's tables are like nobody knows here: like the source's, as a rule. */
async function readFollowed(
  { source, facts }: CarrierSourceSession,
  tables: readonly ReplicatedTable[],
  captured: readonly CapturedTable[],
): Promise<FollowedTable[]> {
  const constraints = await readConstraints(source, facts.version, true);
  return tables.map((table) => followedTable(table, captured, constraints.tables.get(table.source.oid)));
}

/** Opens the file when there is something to write. */
class CarrierSink implements SyncSink {
  readonly #open: (preparedAt: number) => CarrierWriter;
  readonly #onProgress: PrepareCarrierOptions["onProgress"];
  readonly #delivered = deferred<CarrierWriter | undefined>();
  #writer: CarrierWriter | undefined;

  constructor(open: (preparedAt: number) => CarrierWriter, onProgress: PrepareCarrierOptions["onProgress"]) {
    this.#open = open;
    this.#onProgress = onProgress;
  }

  /** The file, which lacks its end; undefined when there is none, as nothing has changed. */
  get delivered(): Promise<CarrierWriter | undefined> {
    return this.#delivered.promise;
  }

  fail(reason: Error): void {
    this.#delivered.reject(reason);
  }

  begin({ commitTime }: Transaction): void {
    this.#writer = this.#open(commitTime);
    this.#writer.failed.catch((error: Error) => this.fail(error));
  }

  change(change: Change): void {
    const writer = this.#writer as CarrierWriter;
    writer.change(change);
    if (change instanceof RowChange && writer.rows % PROGRESS_ROWS === 0) this.#onProgress?.(writer);
  }

  commit(): void {
    this.#delivered.resolve(this.#writer);
  }

  /** Comes behind `commit` too, and changes nothing then. */
  idle(): void {
    this.#delivered.resolve(undefined);
  }

  get full(): boolean {
    return this.#writer?.full === true;
  }

  async whenRoom(): Promise<void> {
    await this.#writer?.whenRoom();
  }
}

function busy(name: string): ErserverError {
  return new ErserverError("ERS-508", `another one prepares a file for target ${name} now`, {
    subject: name,
    remedy: "Wait until it has ended, then prepare again.",
  });
}

function servedDirectly(name: string): ErserverError {
  return new ErserverError("ERS-610", `a replicator brings the changes of this source to target ${name}`, {
    subject: name,
    remedy:
      "Give the target that files are carried to another name; or erserver drop the one of this name first.",
  });
}

function nothingRegistered(): ErserverError {
  return new ErserverError("ERS-306", "no table of the source is registered", {
    remedy: "Run MasterAddTable for each table that is to be replicated.",
  });
}

function tablesGone(tables: readonly { schema: string; name: string }[]): ErserverError {
  const labels = tableLabels(tables);
  return new ErserverError("ERS-505", `registered tables are not there any more: ${labels}`, {
    subject: labels,
    remedy:
      "Take them out of the registered ones, and register what has come in their place, if anything has.",
  });
}

function reshaped(cause: ErserverError): ErserverError {
  return new ErserverError("ERS-509", cause.message, {
    ...(cause.subject === undefined ? {} : { subject: cause.subject }),
    remedy: "Throw away what there is of the file, and prepare it again.",
    cause,
  });
}
