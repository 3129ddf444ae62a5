import { setTimeout as sleep } from "node:timers/promises";
import { formatLsn, type Lsn, parseLsn } from "../change/lsn.ts";
import { lockUnchanged, openSnapshotReader } from "../copy/snapshot-reader.ts";
import { copiedColumns } from "../copy/table-copy.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { readColumnMode } from "../pipeline/column-mode.ts";
import { connectReplication } from "../pipeline/connect-replication.ts";
import { type CommandOptions, contextOf } from "../pipeline/context.ts";
import { emitMarker } from "../pipeline/marker.ts";
import { checkTargetTables } from "../pipeline/open-pipeline.ts";
import { notInitialized, refusePaused } from "../pipeline/pause.ts";
import { connectSides, isServed, type Sides } from "../pipeline/sides.ts";
import { runUntil } from "../pipeline/sync.ts";
import {
  type Catalogue,
  type CatalogTable,
  readTables,
  tableKey,
  tableLabel,
  tablesByKey,
} from "../postgres/catalog.ts";
import { lockKeys, tryLock } from "../postgres/advisory-lock.ts";
import { connectWire, type SessionOptions } from "../postgres/connect.ts";
import { isRewritten } from "../postgres/rewritten.ts";
import {
  type CaptureKind,
  type ReplicatedTable,
  requireTables,
  selectTables,
} from "../postgres/selection.ts";
import { abandonSlot, createTemporarySlot, type ExportedSnapshot } from "../postgres/slots.ts";
import type { Registration } from "../store/pipeline-store.ts";
import { readServerFacts } from "../postgres/server-facts.ts";
import { addHashes, hashTable, sameHash, type TableHash } from "../postgres/table-hash.ts";
import { quoteLiteral } from "../quote/literal.ts";
import { onAbort } from "../runtime/abort.ts";
import type { WireConnection } from "../wire/connection.ts";

export interface TableComparison {
  /** The target's table. */
  readonly table: string;
  readonly equal: boolean;
  /** Without a row identity only its inserts are replicated: it differs once a row was updated or deleted. */
  readonly insertsOnly: boolean;
  /** Of a table that is replicated by column: an UPDATE of no other columns is replicated. */
  readonly columns: readonly string[] | undefined;
  readonly sourceRows: number;
  readonly targetRows: number;
}

export interface VerifyOptions extends CommandOptions {
  readonly signal: AbortSignal;
  readonly onTable?: (comparison: TableComparison) => void;
}

export interface Verification {
  /** Both sides were compared as of this position of the source. */
  readonly lsn: Lsn;
  readonly tables: readonly TableComparison[];
}

/** The applier stands still no longer than this, whatever becomes of us. */
const HOLD_SECONDS = 60;
const POLL_MS = 50;

/**
 * Compares every table at one position, while writers and the replicator go on. The applier is asked to stand
 * still for a moment; the source gives a snapshot and its position; the applier goes on to exactly there and
 * stands still until the target has given a snapshot too. Without a replicator, this call brings the target there.
 */
export async function verifyTarget(options: VerifyOptions): Promise<Verification> {
  await using sides = await connectSides(options);
  const { capture } = await requireRunning(sides, options.target.name);
  await requireCopied(sides, options.target.name);
  const catalogues = {
    source: { session: sides.source, version: (await readServerFacts(sides.source)).version },
    target: { session: sides.target, version: (await readServerFacts(sides.target)).version },
  };
  const pairs = await pairTables(options, capture, catalogues);
  const byColumn = await readColumnMode(sides.source, { tables: pairs.flatMap(({ sources }) => sources) });
  await using held = new Connections();
  using _giveUp = onAbort(options.signal, () => held.destroy());
  const snapshots = await takeSnapshots(options, sides, held);
  const tables: TableComparison[] = [];
  const queue = [...pairs];
  const job = async (): Promise<void> => {
    const { config, target } = options;
    const reader = { pipeline: target.name, timeoutMs: config.timeoutMs };
    const sourceReader = held.add(
      await openSnapshotReader(config.source, snapshots.source.snapshotName, reader),
    );
    const targetReader = held.add(await openSnapshotReader(target.conninfo, snapshots.target, reader));
    const readers = {
      source: { reader: sourceReader, catalogue: catalogues.source },
      target: { reader: targetReader, catalogue: catalogues.target },
    };
    for (let pair = queue.shift(); pair !== undefined; pair = queue.shift()) {
      const compared = await compare(pair, readers);
      const columns = byColumn.find(({ oid }) =>
        pair.sources.some(({ source }) => source.oid === oid),
      )?.columns;
      const comparison = { ...compared, columns };
      tables.push(comparison);
      options.onTable?.(comparison);
    }
  };
  const failures: unknown[] = [];
  const jobs = Array.from({ length: Math.min(options.config.copyJobs, queue.length) }, () =>
    // The first failure is the cause; the others are abandoned because of it.
    job().catch((error: unknown) => {
      failures.push(error);
      held.destroy();
    }),
  );
  await Promise.all(jobs);
  if (failures.length > 0) throw failures[0];
  return {
    lsn: snapshots.source.consistentPoint,
    tables: tables.toSorted((a, b) => (a.table < b.table ? -1 : 1)),
  };
}

/** The registration of a target that is set up, and not paused. */
async function requireRunning(sides: Sides, name: string): Promise<Registration> {
  const registration = await sides.registration();
  if (registration === undefined) throw notInitialized(name);
  refusePaused(registration, name);
  return registration;
}

/** A comparison must not be what fills the target. */
async function requireCopied({ store }: Sides, name: string): Promise<void> {
  const states = await store.tableStates();
  const missing = states.filter(({ state }) => state !== "finished_copy");
  if (missing.length === 0 && states.length > 0) return;
  throw new ErserverError(
    "ERS-407",
    `${missing.length} of ${states.length} tables of target ${name} are not copied yet`,
    {
      subject: name,
      remedy: "Have them copied first: erserver run or erserver sync.",
    },
  );
}

interface Snapshots {
  readonly source: ExportedSnapshot;
  /** Name of the target's, of the same position. */
  readonly target: string;
}

async function takeSnapshots(options: VerifyOptions, sides: Sides, held: Connections): Promise<Snapshots> {
  const { name } = options.target;
  // Two at once would move each other's position.
  await lockHold(sides, options);
  try {
    const { capture } = await requireRunning(sides, name);
    const take = capture === "wal" ? takeByWal : takeByTriggers;
    return await take(options, sides, held);
  } finally {
    await sides.store.hold(undefined, 0);
    await sides.target.query(`select pg_catalog.pg_advisory_unlock(${lockKeys("hold", name)})`);
  }
}

async function takeByWal(options: VerifyOptions, sides: Sides, held: Connections): Promise<Snapshots> {
  const { name } = options.target;
  const replication = held.add(await connectReplication(contextOf(options)));
  const { slot } = await requireRunning(sides, name);
  await standAt(sides, STAND_STILL, options);
  using _giveUp = onAbort(options.signal, () => void abandonSlot(sides.source, replication));
  const source = await createTemporarySlot(replication, slot, "verify");
  const { consistentPoint } = source;
  // It may have waited for long; what was dropped meanwhile must not be made anew.
  await requireRunning(sides, name);
  await standAt(sides, { lsn: consistentPoint }, options);
  const target = await exportTarget(options, held);
  // The source may have needed longer, to wait for its running transactions.
  if (target.lsn > consistentPoint) throw notInTime(name, consistentPoint);
  return { source, target: target.snapshotName };
}

/** Any snapshot will do, when the applier has stood still before it: it can be made to go exactly there. */
async function takeByTriggers(options: VerifyOptions, sides: Sides, held: Connections): Promise<Snapshots> {
  const { config, target } = options;
  await standAt(sides, STAND_STILL, options);
  const exporter = held.add(await connectWire(config.source, sessionOf(options)));
  const [, exported] = await exporter.query(
    "begin isolation level repeatable read read only; select pg_catalog.pg_export_snapshot()",
  );
  const snapshotName = exported?.rows[0]?.[0] ?? "";
  await standAt(sides, { lsn: SECOND_LSN, snapshotName }, options);
  const exportedTarget = await exportTarget(options, held);
  const { lsn } = await emitMarker(sides.source);
  if (!exportedTarget.stands) throw notInTime(target.name, lsn);
  return { source: { snapshotName, consistentPoint: lsn }, target: exportedTarget.snapshotName };
}

async function exportTarget(
  options: VerifyOptions,
  held: Connections,
): Promise<{ snapshotName: string; lsn: Lsn; stands: boolean }> {
  const { name, conninfo } = options.target;
  const exporter = held.add(await connectWire(conninfo, sessionOf(options)));
  const [, exported] = await exporter.query(
    `begin isolation level repeatable read read only;
     select pg_catalog.pg_export_snapshot(), g.lsn, p.hold_until > pg_catalog.clock_timestamp()
     from erserver.progress as g join erserver.pipeline as p on p.name = g.pipeline where p.name = ${quoteLiteral(name)}`,
  );
  const [snapshotName, lsn, stands] = exported?.rows[0] ?? [];
  if (lsn == null) throw notInitialized(name);
  // A hold is void after a while.
  return { snapshotName: snapshotName ?? "", lsn: parseLsn(lsn), stands: stands === "t" };
}

function sessionOf({ config, target }: VerifyOptions): SessionOptions {
  return { applicationName: `erserver ${target.name} command`, timeoutMs: config.timeoutMs };
}

/** Waits for others that make the same replicator stand still; each takes no longer than `HOLD_SECONDS`. */
async function lockHold({ target }: Sides, { target: { name }, signal }: VerifyOptions): Promise<void> {
  while (!(await tryLock(target, "hold", name))) {
    signal.throwIfAborted();
    await sleep(POLL_MS);
  }
}

/** Below every position: nothing more is applied. */
const FIRST_LSN = parseLsn("0/1");
const SECOND_LSN = parseLsn("0/2");

interface Place {
  /** Where, or where the snapshot says so only what is to be answered. */
  readonly lsn: Lsn;
  readonly snapshotName?: string;
}

const STAND_STILL: Place = { lsn: FIRST_LSN };

/**
 * Has the target stand at a position, or where it is: whoever serves it is asked to; where nobody does, not even for
 * the moment of a reconnect, this call brings it there.
 */
async function standAt(sides: Sides, place: Place, options: VerifyOptions): Promise<void> {
  const { store, target } = sides;
  const { name } = options.target;
  const { lsn, snapshotName } = place;
  await store.hold(lsn, HOLD_SECONDS, snapshotName);
  const deadline = Date.now() + (HOLD_SECONDS * 1000) / 2;
  while ((await store.heldLsn()) !== lsn) {
    options.signal.throwIfAborted();
    await requireRunning(sides, name);
    if (Date.now() > deadline) throw notInTime(name, lsn);
    if (await isServed(target, name)) await sleep(POLL_MS);
    else if (place === STAND_STILL) return;
    else if ((await runUntil(options, lsn, options.signal, snapshotName)) !== undefined) return;
  }
}

function notInTime(name: string, lsn: Lsn): ErserverError {
  return new ErserverError(
    "ERS-802",
    `target ${name} did not stand at ${formatLsn(lsn)} in time to be compared there`,
    {
      subject: name,
      remedy:
        "See erserver status: when it is streaming, and the source has no transaction that has been open for long, run erserver verify again.",
    },
  );
}

interface Pair {
  readonly label: string;
  /** More than one where partitions of the source stand under one table of the target. */
  readonly sources: readonly ReplicatedTable[];
  readonly target: CatalogTable;
}

async function pairTables(
  { config }: VerifyOptions,
  capture: CaptureKind,
  { source, target }: Readonly<Record<"source" | "target", Catalogue>>,
): Promise<Pair[]> {
  const selection = selectTables(
    await readTables(source.session, source.version),
    config.tables,
    source.version,
    capture,
  );
  requireTables(selection);
  const targets = tablesByKey(await readTables(target.session, target.version));
  // Values of different types cannot be compared, nor are they replicated.
  checkTargetTables(selection.tables, targets, config.tables.missingColumn);
  const pairs = new Map<string, Pair>();
  for (const table of selection.tables) {
    const label = tableLabel(table.target.schema, table.target.name);
    const found = targets.get(tableKey(table.target.schema, table.target.name)) as CatalogTable;
    pairs.set(label, { label, target: found, sources: [...(pairs.get(label)?.sources ?? []), table] });
  }
  return [...pairs.values()];
}

/** A session in the snapshot that is compared, and the catalogue as it is now. */
interface Reader {
  readonly reader: WireConnection;
  readonly catalogue: Catalogue;
}

async function compare(
  { label, sources, target }: Pair,
  readers: Readonly<Record<"source" | "target", Reader>>,
): Promise<Omit<TableComparison, "columns">> {
  const looks = [
    ...sources.map(({ source }) => ({ ...readers.source, table: source })),
    { ...readers.target, table: target },
  ];
  for (const { reader, catalogue, table } of looks)
    if (!(await lockUnchanged(reader, catalogue, table))) throw changed(label);
  const columnsOf = (table: ReplicatedTable): CatalogTable["columns"] => {
    const names = copiedColumns(table, target);
    return table.source.columns.filter((column) => names.includes(column.name));
  };
  const first = sources[0] as ReplicatedTable;
  const columns = columnsOf(first);
  const [wanted, found] = await Promise.all([
    sources.reduce<Promise<TableHash>>(
      // In the order of the first: partitions may have their columns in another.
      async (sum, table) =>
        addHashes(
          await sum,
          await hashTable(readers.source.reader, { ...table.source, columns, where: table.where }),
        ),
      Promise.resolve({ rows: 0, sum: "0:0" }),
    ),
    hashTable(readers.target.reader, { ...target, columns }),
  ]);
  // Neither side's snapshot shows a table as it was before somebody truncated it.
  for (const { reader, table } of looks) if (await isRewritten(reader, table.oid)) throw changed(label);
  return {
    table: label,
    equal: sameHash(wanted, found),
    insertsOnly: sources.some((table) => table.publishes === "insert"),
    sourceRows: wanted.rows,
    targetRows: found.rows,
  };
}

function changed(label: string): ErserverError {
  return new ErserverError(
    "ERS-802",
    `${label} was altered, truncated or rewritten before it could be compared`,
    { subject: label, remedy: "Run erserver verify again." },
  );
}

/** Connections that end together. */
class Connections implements AsyncDisposable {
  readonly #open: WireConnection[] = [];
  #destroyed = false;

  add(connection: WireConnection): WireConnection {
    this.#open.push(connection);
    if (this.#destroyed) connection.destroy();
    return connection;
  }

  destroy(): void {
    this.#destroyed = true;
    for (const connection of this.#open) connection.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#open.map((connection) => connection.end()));
  }
}
