import {
  type CapturedTable,
  captureTables,
  forgetIfRestored,
  readRegisteredTables,
  type TableToCapture,
} from "../capture/trigger/captured-tables.ts";
import type { FollowedTable } from "../capture/trigger/changes-query.ts";
import {
  captureExists,
  confirm,
  type Consumer,
  continues,
  readConsumer,
  registerConsumer,
} from "../capture/trigger/consumers.ts";
import { exportSnapshot } from "../capture/trigger/export-snapshot.ts";
import { LogCleaner } from "../capture/trigger/log-cleaner.ts";
import { parseSnapshot, parseTargetSnapshot, type XidSnapshot } from "../capture/trigger/snapshot.ts";
import { type DurableSync, type TableBase, TriggerCapture } from "../capture/trigger/trigger-capture.ts";
import { parseLsn } from "../change/lsn.ts";
import { describeConninfo } from "../config/conninfo.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { plural } from "../observability/figures.ts";
import { type CatalogTable, tableKey, tableLabels } from "../postgres/catalog.ts";
import { type Constraints, readConstraints } from "../postgres/constraints.ts";
import type { ControlSession } from "../postgres/connect.ts";
import type { ReplicatedTable, Selection } from "../postgres/selection.ts";
import { slotTaken } from "../postgres/slots.ts";
import { connectWatched } from "../postgres/watchdog.ts";
import type { Progress, TableState } from "../store/pipeline-store.ts";
import { migrate, requireMayMigrate } from "../store/migrate.ts";
import type { Capture, CaptureStart, ChangeSource, HeldSnapshot } from "./change-source.ts";
import { sessionOptions } from "./context.ts";
import { columnModeProblem, readColumnMode } from "./column-mode.ts";
import { BUDGET_CHECK_MS, watchLogBudget } from "./log-budget.ts";
import type { PreparedSource, SourceInput } from "./source-input.ts";
import { requireSameTables, tablesReplaced } from "./table-states.ts";
import { followedTable, TableShapes, tablesToCapture } from "./trigger-tables.ts";

/** Number of the first sync. */
const FIRST_SYNC = parseLsn("0/1");

/** The source hears of a position, and its logs are cleaned, at most this often, in milliseconds. */
const CONFIRM_MS = 2_000;
/** When nothing has changed there is nothing to clean, but for what other targets have held up. */
const IDLE_CONFIRM_MS = 60_000;

/** Triggers and logs: changes are recorded by the source's own transactions. Throws what keeps it from that. */
export async function prepareTriggers(input: SourceInput): Promise<PreparedSource> {
  const { context, source, slot, selection, known, copied } = input;
  const consumer = await readConsumer(source, slot);
  if (known?.carrier !== undefined || consumer?.carrier !== undefined) throw carriedTo(context.target.name);
  if (known === undefined && consumer !== undefined)
    throw slotTaken(slot, "another target of this source has its name, and this one knows nothing of it");
  await requireMayMigrate(source, describeConninfo(context.config.source), "source");
  if (context.config.tables.registeredOnly) await requireRegistered(source, selection);
  requireSameTables(copied, selection);
  const wanted = await tablesToCapture(input);
  const isCopied = ({ source: { schema, name } }: ReplicatedTable): boolean =>
    copied.has(tableKey(schema, name));
  return {
    make: async () => {
      const migrated = await migrate(source, describeConninfo(context.config.source), "source");
      await forgetIfRestored(source);
      const captured = await captureTables(source, wanted);
      const followed = selection.tables.filter(isCopied);
      requireRecorded(input, followed, captured, consumer);
      await registerConsumer(source, {
        pipeline: slot,
        name: context.target.name,
        tables: captured.map(({ id }) => id),
        registeredOnly: context.config.tables.registeredOnly,
      });
      const fresh = captured.filter(({ id }) => consumer?.tables.includes(id) !== true).length;
      return {
        changes: await TriggerSource.open(input, captured, wanted),
        made: [
          ...migrated.map((name) => `schema erserver on the source: ${name}`),
          ...(fresh === 0 ? [] : [`triggers on ${plural(fresh, "table")} of the source`]),
        ],
        // Whoever has registered a table by column has been told then.
        problems: context.config.tables.registeredOnly
          ? []
          : (await readColumnMode(source, selection)).map(columnModeProblem),
      };
    },
  };
}

/** Throws ERS-413 when somebody has taken a table's registration back since the selection was made. */
async function requireRegistered(source: ControlSession, { tables }: Selection): Promise<void> {
  const registered = (await captureExists(source)) ? await readRegisteredTables(source) : [];
  const missing = tables.filter(({ source: { oid } }) => !registered.some((one) => one.oid === oid));
  if (missing.length === 0) return;
  const labels = tableLabels(missing.map((table) => table.source));
  throw new ErserverError(
    "ERS-413",
    `${labels} ${missing.length === 1 ? "is" : "are"} not registered on the master any more`,
    {
      subject: labels,
      remedy:
        "Run SlaveRemoveTable for each on the slave, or MasterAddTable on the master; then Replicate again.",
    },
  );
}

/** What was copied must have been recorded ever since. */
function requireRecorded(
  { selection, slot, progress }: SourceInput,
  followed: readonly ReplicatedTable[],
  captured: readonly CapturedTable[],
  consumer: Consumer | undefined,
): void {
  if (progress === undefined || followed.length === 0) return;
  if (consumer === undefined) throw forgotten(slot);
  if (progress.snapshot !== undefined && !continues(consumer, progress.snapshot)) throw setBack(slot);
  const recorded = new Set(captured.filter(({ id }) => consumer.tables.includes(id)).map(({ oid }) => oid));
  const missed = followed.filter(({ source }) => !recorded.has(source.oid));
  if (missed.length > 0) throw tablesReplaced(missed, selection);
}

function carriedTo(name: string): ErserverError {
  return new ErserverError("ERS-610", `the changes for target ${name} come by carrier files`, {
    subject: name,
    remedy:
      "Go on with PrepareSnapshot and ApplySnapshot; or start over for this target: erserver drop, empty its tables, erserver run.",
  });
}

function forgotten(slot: string): ErserverError {
  return new ErserverError(
    "ERS-503",
    `the source has forgotten target "${slot}" and what has changed since`,
    {
      subject: slot,
      remedy: "Start over for this target: erserver drop, empty its tables, erserver run.",
    },
  );
}

function setBack(slot: string): ErserverError {
  return new ErserverError(
    "ERS-503",
    `the source does not have what has changed since the state that target "${slot}" shows: one of the two was set back to an older state`,
    {
      subject: slot,
      remedy: "Start over for this target: erserver drop, empty its tables, erserver run.",
    },
  );
}

class TriggerSource implements ChangeSource {
  readonly kind = "trigger";
  readonly #input: SourceInput;
  readonly #captured: readonly CapturedTable[];
  readonly #cleaner: LogCleaner;
  readonly #shapes: TableShapes;
  readonly #constraints: Constraints;
  #confirmedMs = Number.NEGATIVE_INFINITY;
  /** Not before the source has heard of this target: one that is just back has been silent for long. */
  #budgetMs = Number.NEGATIVE_INFINITY;
  #unconfirmed: DurableSync | undefined;
  #confirming: Promise<void> = Promise.resolve();

  private constructor(
    input: SourceInput,
    captured: readonly CapturedTable[],
    shapes: TableShapes,
    constraints: Constraints,
  ) {
    this.#input = input;
    this.#captured = captured;
    this.#shapes = shapes;
    this.#constraints = constraints;
    this.#cleaner = new LogCleaner(input.source);
  }

  static async open(
    input: SourceInput,
    captured: readonly CapturedTable[],
    wanted: readonly TableToCapture[],
  ): Promise<TriggerSource> {
    const constraints = await readConstraints(input.control, input.targetFacts.version, input.replicaRole);
    const tables = wanted.map(({ table }) => table);
    const shapes = await TableShapes.read(input.source, tables);
    return new TriggerSource(input, captured, shapes, constraints);
  }

  async takeSnapshot(progress: Progress | undefined): Promise<HeldSnapshot> {
    const { context, store } = this.#input;
    const { holder, snapshotName, xids } = await exportSnapshot(
      context.config.source,
      sessionOptions(context),
    );
    try {
      if (progress === undefined) await store.startProgress(FIRST_SYNC, xids);
      return { snapshot: { snapshotName, consistentPoint: progress?.lsn ?? FIRST_SYNC, xids }, holder };
    } catch (error) {
      holder.destroy();
      throw error;
    }
  }

  async start({ progress, states, sink, binary, toSnapshot, only }: CaptureStart): Promise<Capture> {
    const { context, selection } = this.#input;
    const { source: ownBackends } = context.ownBackends;
    const has = parseTargetSnapshot(progress.snapshot ?? "");
    const copies = copySnapshots(states, progress);
    const tables: TableBase[] = [];
    const rest = new Map(has.ahead);
    for (const replicated of selection.tables) {
      const key = tableKey(replicated.source.schema, replicated.source.name);
      const table = this.#followed(replicated);
      const ahead = copies.get(key) ?? has.ahead.get(table.id);
      if (only?.has(key) !== false) tables.push({ table, base: ahead ?? has.base });
      else if (ahead !== undefined) rest.set(table.id, ahead);
    }
    const connection = await connectWatched(context.config.source, sessionOptions(context));
    ownBackends.clear();
    ownBackends.add(connection.backendPid);
    return new TriggerCapture({
      connection,
      tables,
      rest: only === undefined ? undefined : { base: has.base, ahead: rest },
      startLsn: progress.lsn,
      sink,
      binary,
      toSnapshot,
      requireUnchanged: (oids) => this.#shapes.requireUnchanged(oids),
      onDurable: (durable) => this.#onDurable(durable),
      settle: async () => {
        this.#confirmSoon();
        await this.#confirming;
      },
    });
  }

  async requireUnchanged(): Promise<void> {
    const { source, slot } = this.#input;
    const consumer = await readConsumer(source, slot);
    // What is recorded of a table that was taken out is removed as others are done with it.
    if (consumer === undefined || this.#captured.some(({ id }) => !consumer.tables.includes(id)))
      throw forgotten(slot);
    await this.#shapes.requireUnchanged();
  }

  #followed(table: ReplicatedTable): FollowedTable {
    const target = this.#input.targetTables.get(
      tableKey(table.target.schema, table.target.name),
    ) as CatalogTable;
    const followed = followedTable(table, this.#captured, this.#constraints.tables.get(target.oid));
    // What only the target has of a row would go with it.
    const written = new Set(table.columns);
    const own = target.columns.some(({ name, generated }) => !generated && !written.has(name));
    return { ...followed, rewrites: followed.rewrites && !own };
  }

  /** Not often: each is a small transaction on the source. */
  #onDurable(durable: DurableSync): void {
    this.#unconfirmed = { ...durable, changes: durable.changes || this.#unconfirmed?.changes === true };
    const sinceMs = performance.now() - this.#confirmedMs;
    if (sinceMs >= (this.#unconfirmed.changes ? CONFIRM_MS : IDLE_CONFIRM_MS)) this.#confirmSoon();
  }

  /** One at a time. */
  #confirmSoon(): void {
    const durable = this.#unconfirmed;
    if (durable === undefined) return;
    this.#unconfirmed = undefined;
    this.#confirmedMs = performance.now();
    // The next one says the same; that the session is lost others notice.
    this.#confirming = this.#confirming.then(() => this.#confirm(durable)).catch(() => {});
  }

  async #confirm({ snapshot, lsn }: DurableSync): Promise<void> {
    const { context, source, slot } = this.#input;
    await confirm(source, slot, snapshot, lsn);
    if (performance.now() - this.#budgetMs >= BUDGET_CHECK_MS) {
      this.#budgetMs = performance.now();
      await watchLogBudget(source, context);
    }
    await this.#cleaner.clean(this.#captured.map(({ id }) => id));
  }
}

/** What the copies show of tables that were copied since the last sync, by `tableKey`. */
function copySnapshots(states: readonly TableState[], progress: Progress): Map<string, XidSnapshot> {
  return new Map(
    states.flatMap(({ schema, name, copyLsn, copySnapshot }) =>
      copyLsn === undefined || copySnapshot === undefined || copyLsn < progress.lsn
        ? []
        : [[tableKey(schema, name), parseSnapshot(copySnapshot)]],
    ),
  );
}
