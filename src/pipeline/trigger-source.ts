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
  readConsumer,
  registerConsumer,
} from "../capture/trigger/consumers.ts";
import { LogCleaner } from "../capture/trigger/log-cleaner.ts";
import { parseSnapshot, parseTargetSnapshot, type XidSnapshot } from "../capture/trigger/snapshot.ts";
import { type DurableSync, type TableBase, TriggerCapture } from "../capture/trigger/trigger-capture.ts";
import { parseLsn } from "../change/lsn.ts";
import { describeConninfo } from "../config/conninfo.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { plural } from "../observability/figures.ts";
import { type CatalogTable, PARTITION_TREES, tableKey, tableLabel } from "../postgres/catalog.ts";
import { type Constraints, readConstraints } from "../postgres/constraints.ts";
import type { ControlSession } from "../postgres/connect.ts";
import type { ReplicatedTable, Selection } from "../postgres/selection.ts";
import { slotTaken } from "../postgres/slots.ts";
import { connectWatched } from "../postgres/watchdog.ts";
import type { Progress, TableState } from "../store/pipeline-store.ts";
import { migrate } from "../store/migrate.ts";
import type { Capture, CaptureStart, ChangeSource, HeldSnapshot } from "./change-source.ts";
import { sessionOptions } from "./context.ts";
import { columnModeProblem, readColumnMode } from "./column-mode.ts";
import { BUDGET_CHECK_MS, enforceLogBudget } from "./log-budget.ts";
import { relationOf } from "./relation-of.ts";
import type { PreparedSource, SourceInput } from "./source-input.ts";
import { tablesToCapture } from "./tables-to-capture.ts";
import { requireSameTables, tablesReplaced } from "./table-states.ts";

/**
 * Types whose values are equal exactly when their bytes are, by pg_type.oid: bool, bytea, char, name, int8, int2, int4, text, oid, cidr, macaddr, bpchar,
 * varchar, date, time, timestamp, timestamptz, uuid, inet.
 */
const EXACT_TYPES = new Set([
  16, 17, 18, 19, 20, 21, 23, 25, 26, 650, 829, 1042, 1043, 1082, 1083, 1114, 1184, 2950, 869,
]);

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
  if (known === undefined && consumer !== undefined)
    throw slotTaken(slot, "another target of this source has its name, and this one knows nothing of it");
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
        problems: [
          // Whoever has registered a table by column has been told then.
          ...(context.config.tables.registeredOnly
            ? []
            : (await readColumnMode(source, selection)).map(columnModeProblem)),
          ...(await enforceLogBudget(source, context.config)),
        ],
      };
    },
  };
}

/** Throws ERS-413 when somebody has taken a table's registration back since the selection was made. */
async function requireRegistered(source: ControlSession, { tables }: Selection): Promise<void> {
  const registered = (await captureExists(source)) ? await readRegisteredTables(source) : [];
  const missing = tables.filter(({ source: { oid } }) => !registered.some((one) => one.oid === oid));
  if (missing.length === 0) return;
  const labels = missing.map(({ source: { schema, name } }) => tableLabel(schema, name)).join(", ");
  throw new ErserverError("ERS-413", `${labels} is not registered on the master any more`, {
    subject: labels,
    remedy:
      "Run SlaveRemoveTable for it on the slave, or MasterAddTable on the master; then Replicate again.",
  });
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
  const recorded = new Set(captured.filter(({ id }) => consumer.tables.includes(id)).map(({ oid }) => oid));
  const missed = followed.filter(({ source }) => !recorded.has(source.oid));
  if (missed.length > 0) throw tablesReplaced(missed, selection);
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

class TriggerSource implements ChangeSource {
  readonly kind = "trigger";
  readonly #input: SourceInput;
  readonly #captured: readonly CapturedTable[];
  readonly #cleaner: LogCleaner;
  /** What the tables and their triggers were like, by OID. */
  readonly #shapes: ReadonlyMap<number, string>;
  readonly #constraints: Constraints;
  #confirmedMs = Number.NEGATIVE_INFINITY;
  #budgetMs = performance.now();
  #unconfirmed: DurableSync | undefined;
  #confirming: Promise<void> = Promise.resolve();

  private constructor(
    input: SourceInput,
    captured: readonly CapturedTable[],
    shapes: ReadonlyMap<number, string>,
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
    const oids = wanted.map(({ table }) => table.oid);
    const constraints = await readConstraints(input.control, input.targetFacts.version, input.replicaRole);
    return new TriggerSource(input, captured, await readShapes(input, oids), constraints);
  }

  async takeSnapshot(progress: Progress | undefined): Promise<HeldSnapshot> {
    const { context, store } = this.#input;
    const holder = await connectWatched(context.config.source, sessionOptions(context));
    try {
      const results = await holder.query(
        "begin isolation level repeatable read read only; select pg_catalog.pg_export_snapshot(), pg_catalog.txid_current_snapshot()::text",
      );
      const [snapshotName = "", xids = ""] = (results[1]?.rows[0] ?? []) as string[];
      const snapshot = { snapshotName, consistentPoint: progress?.lsn ?? FIRST_SYNC, xids };
      if (progress === undefined) await store.startProgress(FIRST_SYNC, xids);
      return { snapshot, holder };
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
      requireUnchanged: (oids) => this.#requireShapes(oids),
      onDurable: (durable) => this.#onDurable(durable),
      settle: async () => {
        this.#confirmSoon();
        await this.#confirming;
      },
    });
  }

  async requireUnchanged(): Promise<void> {
    const { source, slot } = this.#input;
    if ((await readConsumer(source, slot)) === undefined) throw forgotten(slot);
    await this.#requireShapes([...this.#shapes.keys()]);
  }

  #followed(table: ReplicatedTable): FollowedTable {
    const { id, key } = this.#captured.find(({ oid }) => oid === table.source.oid) as CapturedTable;
    const target = this.#input.targetTables.get(
      tableKey(table.target.schema, table.target.name),
    ) as CatalogTable;
    const relation = relationOf(table);
    // What only the target has of a row would go with it.
    const written = new Set(table.columns);
    const own = target.columns.some(({ name, generated }) => !generated && !written.has(name));
    const { unique = [], looselyCompared = [] } = this.#constraints.tables.get(target.oid) ?? {};
    const keys = table.source.columns.filter(({ name }) => key.some((column) => column.name === name));
    // Equal keys may look different, and an UPDATE leaves the key as it is.
    const exact = keys.every(
      ({ baseTypeOid, name }) => EXACT_TYPES.has(baseTypeOid) && !looselyCompared.includes(name),
    );
    const keyNames = JSON.stringify(keys.map(({ name }) => name).toSorted());
    const others = unique.some((names) => JSON.stringify(names?.toSorted()) !== keyNames);
    const rewrites = (others || !exact) && !own;
    return { id, key, relation, partitioned: table.source.partitioned, rewrites };
  }

  async #requireShapes(oids: readonly number[]): Promise<void> {
    const now = await readShapes(this.#input, oids);
    const changed = oids.find((oid) => now.get(oid) !== this.#shapes.get(oid));
    if (changed === undefined) return;
    const table = this.#input.selection.tables.find(({ source }) => source.oid === changed)?.source;
    const label = table === undefined ? String(changed) : tableLabel(table.schema, table.name);
    throw new ErserverError("ERS-509", `table ${label}, its partitions or its triggers were changed`, {
      subject: label,
      remedy: "Nothing to do: the pipeline is opened anew by itself, and says what is missing.",
    });
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
      for (const { message, code, remedy } of await enforceLogBudget(source, context.config))
        context.log.warn(message, { code, remedy });
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

/** What a table is called, its columns, its partitions, and how many triggers of ours are there and fire: of each a text that changes with it. */
async function readShapes({ source }: SourceInput, oids: readonly number[]): Promise<Map<number, string>> {
  const rows = await source.query<{ root: string; shape: string }>(
    `with recursive ${PARTITION_TREES}
     select tree.root::text, pg_catalog.md5(pg_catalog.string_agg(pg_catalog.concat_ws(',', c.oid, n.nspname, c.relname, a.columns, g.triggers), ';' order by c.oid)) as shape
     from tree join pg_catalog.pg_class c on c.oid = tree.oid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       cross join lateral (select pg_catalog.string_agg(pg_catalog.concat_ws(' ', attnum, attname, atttypid, atttypmod), ',' order by attnum) as columns
         from pg_catalog.pg_attribute where attrelid = c.oid and attnum > 0 and not attisdropped) a
       cross join lateral (select count(*) as triggers from pg_catalog.pg_trigger where tgrelid = c.oid and tgname like 'erserver\\_%' and tgenabled in ('O', 'A')) g
     group by tree.root`,
    [oids],
  );
  return new Map(rows.map(({ root, shape }) => [Number(root), shape]));
}
