import { Applier, type Applied } from "../apply/applier.ts";
import { planTable, type TablePlan } from "../apply/table-plan.ts";
import { WalCapture } from "../capture/wal/wal-capture.ts";
import { formatLsn, type Lsn, maxLsn, parseLsn } from "../change/lsn.ts";
import type { Relation } from "../change/relation.ts";
import { describeConninfo } from "../config/conninfo.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { type CatalogTable, readTables, tableKey, tableLabel } from "../postgres/catalog.ts";
import type { ReplicatedTable } from "../postgres/selection.ts";
import { MemoryTransport } from "../transport/memory.ts";
import { FlushTracker } from "./flush-tracker.ts";
import { connectReplication } from "./connect-replication.ts";
import { type OpenPipeline, type PipelineContext, select, sourceTypeNames } from "./open-pipeline.ts";
import { Wishlist } from "./wishlist.ts";

export interface FollowOptions {
  readonly signal: AbortSignal;
  /** Stop before the first transaction that commits at or after it. */
  readonly untilLsn: Lsn | undefined;
  /** The target has everything before `appliedLsn`; `transactions` and `rows` more than at the last call. */
  readonly onApplied: (applied: Pick<Applied, "sourceLsn" | "transactions" | "rows">) => void;
  /** Called with every change of the flow's state. */
  readonly onState: (state: "catching-up" | "streaming" | "paused") => void;
}

/** Held in memory for one pipeline, beyond the group that is being written. */
const CAPACITY_BYTES = 16 * 1024 * 1024;

/** While commits wait to be flushed the target is asked this often; the WAL writer flushes every 200 ms. */
const FLUSH_POLL_MS = 100;

/** The target's position follows an idle source at most this often: each time is a small transaction. */
const IDLE_ADVANCE_MS = 5_000;

/** Behind by more than this, with work waiting, is catching up. */
const CATCHING_UP_MS = 10_000;

/**
 * Follows the source until the signal, or `untilLsn`: takes what the capture delivers, applies it, and tells the
 * source what is durable. Resolves after the group in flight; throws what broke.
 */
export async function follow(
  context: PipelineContext,
  open: OpenPipeline,
  options: FollowOptions,
): Promise<void> {
  const { config, target } = context;
  const progress = await open.store.progress();
  if (progress === undefined) throw new Error("no progress is recorded");
  // A predecessor's last commits may not be flushed yet: a crash of the target could still take them back.
  const [wal] = await open.control.query("select pg_catalog.pg_current_wal_insert_lsn() as lsn");
  const transport = new MemoryTransport({
    capacityBytes: CAPACITY_BYTES,
    groupTransactions: config.apply.group.transactions,
    groupBytes: config.apply.group.bytes,
    untilLsn: options.untilLsn,
  });
  // The source may not have noticed that our last connection is dead, and the slot is taken until it has.
  await open.source.query(
    "select pg_catalog.pg_terminate_backend(active_pid) from pg_catalog.pg_replication_slots where slot_name = $1 and active_pid = any ($2::int[])",
    [open.slot, [...context.ownBackends.source]],
  );
  const connection = await connectReplication(context);
  context.ownBackends.source.add(connection.backendPid);
  const binary = usesBinary(context, open);
  await using capture = await WalCapture.start({
    connection,
    subject: describeConninfo(config.source),
    slot: open.slot,
    publications: [open.publications.all, open.publications.insertOnly],
    startLsn: progress.lsn,
    binary,
    sink: transport,
    timeoutMs: config.timeoutMs,
  });
  const planner = new Planner(context, open, binary);
  const applier = new Applier({
    connection: open.session.connection,
    pipeline: target.name,
    progressLsn: progress.lsn,
    conflict: config.apply.conflict,
    planFor: (relation) => planner.plan(relation),
  });
  await using wishlist = new Wishlist(open.store, (error) => transport.fail(error));
  const stop = (): void => transport.wake();
  options.signal.addEventListener("abort", stop);
  capture.failed.catch((error: unknown) => transport.fail(error as Error));
  void open.session.connection.closed.then((error) => transport.fail(error));
  try {
    await new Flow({
      capture,
      applier,
      transport,
      wishlist,
      options,
      progressLsn: progress.lsn,
      targetLsn: parseLsn(wal?.["lsn"] ?? ""),
      open,
    }).run();
  } finally {
    options.signal.removeEventListener("abort", stop);
  }
}

interface FlowParts {
  readonly capture: WalCapture;
  readonly applier: Applier;
  readonly transport: MemoryTransport;
  readonly wishlist: Wishlist;
  readonly options: FollowOptions;
  readonly open: OpenPipeline;
  readonly progressLsn: Lsn;
  /** End of the target's WAL, in which `progressLsn` is recorded. */
  readonly targetLsn: Lsn;
}

/** The loop, and what it knows. */
class Flow {
  readonly #parts: FlowParts;
  readonly #tracker = new FlushTracker();
  #appliedLsn: Lsn;
  #advancedMs = Number.NEGATIVE_INFINITY;
  #state: "catching-up" | "streaming" | "paused" | undefined;
  #tablesReady = false;

  constructor(parts: FlowParts) {
    this.#parts = parts;
    this.#appliedLsn = parts.progressLsn;
    this.#tracker.committed(parts.progressLsn, parts.targetLsn);
  }

  async run(): Promise<void> {
    const { transport, wishlist, options, capture } = this.#parts;
    this.#setState("catching-up");
    options.onApplied({ sourceLsn: this.#appliedLsn, transactions: 0, rows: 0 });
    for (;;) {
      if (options.signal.aborted) {
        // A transaction that is open on the target is rolled back with the session, and comes again whole.
        if (transport.midTransaction) return;
        break;
      }
      if (wishlist.paused && !transport.midTransaction) {
        this.#setState("paused");
        await transport.sleep(FLUSH_POLL_MS);
        await this.#pollFlush();
        continue;
      }
      if (this.#state === "paused") this.#setState("catching-up");
      const delivery = await transport.take(
        this.#tracker.waiting || wishlist.holdLsn !== undefined ? FLUSH_POLL_MS : 1_000,
        wishlist.holdLsn,
      );
      if (delivery === undefined) await this.#pollFlush();
      else if (delivery.kind === "group") {
        const applied = await this.#parts.applier.apply(delivery.group);
        transport.release(delivery.group);
        if (applied !== undefined)
          this.#applied(applied, delivery.group.members.at(-1)?.transaction.commitTime ?? 0);
      } else if (delivery.kind === "idle") await this.#idle(delivery.lsn);
      else if (delivery.kind === "held") await wishlist.reportHeld(delivery.lsn);
      else {
        await this.#advance(maxLsn(this.#appliedLsn, delivery.lsn));
        break;
      }
      capture.acknowledge(this.#appliedLsn, this.#tracker.durableLsn, transport.empty);
    }
    await this.#settle();
  }

  #applied(applied: Applied, commitTime: number): void {
    this.#appliedLsn = applied.sourceLsn;
    this.#committed(applied);
    this.#parts.options.onApplied(applied);
    const behindMs = Date.now() - commitTime / 1000;
    if (this.#parts.transport.empty && behindMs < CATCHING_UP_MS) this.#setState("streaming");
    else if (behindMs > CATCHING_UP_MS && !this.#parts.transport.empty) this.#setState("catching-up");
  }

  #committed(applied: Applied): void {
    this.#tracker.committed(applied.sourceLsn, applied.targetLsn);
    this.#tracker.flushed(applied.targetFlushedLsn);
  }

  async #idle(lsn: Lsn): Promise<void> {
    this.#setState("streaming");
    if (lsn <= this.#appliedLsn) return;
    this.#appliedLsn = lsn;
    this.#parts.options.onApplied({ sourceLsn: lsn, transactions: 0, rows: 0 });
    if (performance.now() - this.#advancedMs >= IDLE_ADVANCE_MS) await this.#advance(lsn);
  }

  /** The slot never gets ahead of what the target has on record: that is how a lost or foreign slot is told. */
  async #advance(lsn: Lsn): Promise<void> {
    if (lsn <= this.#parts.applier.progressLsn) return;
    this.#advancedMs = performance.now();
    this.#committed(await this.#parts.applier.advance(lsn));
    this.#appliedLsn = lsn;
    if (!this.#tablesReady) {
      await this.#parts.open.store.markReady(lsn);
      this.#tablesReady = true;
    }
  }

  async #pollFlush(): Promise<void> {
    const { capture, applier } = this.#parts;
    if (this.#tracker.waiting) this.#tracker.flushed(await applier.flushedLsn());
    capture.acknowledge(this.#appliedLsn, this.#tracker.durableLsn);
    if (this.#appliedLsn > applier.progressLsn && performance.now() - this.#advancedMs >= IDLE_ADVANCE_MS)
      await this.#advance(this.#appliedLsn);
  }

  /** Before a clean end: what was committed becomes durable, and the source hears of it. */
  async #settle(): Promise<void> {
    const { capture, applier } = this.#parts;
    await this.#advance(this.#appliedLsn);
    for (let round = 0; this.#tracker.waiting && round < 20; round++) {
      this.#tracker.flushed(await applier.flushedLsn());
      if (this.#tracker.waiting) await new Promise((resolve) => setTimeout(resolve, 50));
    }
    capture.acknowledge(this.#appliedLsn, this.#tracker.durableLsn, true);
  }

  #setState(state: "catching-up" | "streaming" | "paused"): void {
    if (this.#state === state) return;
    this.#state = state;
    this.#parts.options.onState(state);
  }
}

/**
 * Bytes instead of text, when every column of every table means the same on both servers as bytes. The target's
 * tables count too: they may have a column that the stream still brings though the source has dropped it.
 */
function usesBinary({ config, log }: PipelineContext, open: OpenPipeline): boolean {
  if (config.binary === "off") return false;
  const supported = open.sourceFacts.version >= 140_000;
  const unsafe = open.selection.tables.find(({ source, target }) => {
    const written = open.targetTables.get(tableKey(target.schema, target.name));
    return [...source.columns, ...(written?.columns ?? [])].some((column) => !column.binarySafe);
  });
  const possible = supported && unsafe === undefined;
  if (config.binary === "on" && !possible) {
    const why =
      unsafe === undefined
        ? `PostgreSQL ${open.sourceFacts.versionText} cannot send it (14 and newer can)`
        : `${tableLabel(unsafe.source.schema, unsafe.source.name)} has a column of a user-defined type`;
    throw new ErserverError("ERS-107", `binary replication is asked for, but ${why}`, {
      remedy: "Set `binary: auto` in the configuration.",
    });
  }
  log.debug(`values travel as ${possible ? "binary" : "text"}`, {
    position: formatLsn(open.progress?.lsn ?? (0n as Lsn)),
  });
  return possible;
}

/** Makes table plans, from the catalogues as they were at the start until the stream describes a table anew. */
class Planner {
  readonly #context: PipelineContext;
  readonly #open: OpenPipeline;
  readonly #binary: boolean;
  readonly #sourceTypes: Map<number, string>;
  readonly #bySource: Map<string, ReplicatedTable>;
  readonly #seen = new Set<number>();
  #targetTables: ReadonlyMap<string, CatalogTable>;
  #copyLsns: Map<string, Lsn> | undefined;

  constructor(context: PipelineContext, open: OpenPipeline, binary: boolean) {
    this.#context = context;
    this.#open = open;
    this.#binary = binary;
    this.#targetTables = open.targetTables;
    this.#sourceTypes = sourceTypeNames(open.selection);
    this.#bySource = new Map(
      open.selection.tables.map((table) => [tableKey(table.source.schema, table.source.name), table]),
    );
  }

  async plan(relation: Relation): Promise<TablePlan> {
    if (this.#copyLsns === undefined) {
      const states = await this.#open.store.tableStates();
      this.#copyLsns = new Map(
        states.flatMap((state) =>
          state.copyLsn === undefined ? [] : [[tableKey(state.schema, state.name), state.copyLsn]],
        ),
      );
    }
    if (this.#seen.has(relation.id)) await this.#readTargetAgain();
    this.#seen.add(relation.id);
    await this.#requireCopied(relation);
    let plan: TablePlan;
    try {
      plan = this.#planNow(relation);
    } catch (error) {
      if (!(error instanceof ErserverError)) throw error;
      await this.#readTargetAgain();
      plan = this.#planNow(relation);
    }
    const unsafe = this.#binary ? plan.written.find((column) => !column.target.binarySafe) : undefined;
    if (unsafe !== undefined)
      throw reshaped(
        `${plan.label} has a new column "${unsafe.target.name}", whose values cannot travel as bytes`,
        plan.label,
      );
    return plan;
  }

  /** A partition that was attached after the start may have rows that no change has brought: it is copied first. */
  async #requireCopied({ schema, name }: Relation): Promise<void> {
    const key = tableKey(schema, name);
    if (this.#bySource.has(key)) return;
    const { tables } = await select(this.#context.config, this.#open.source, this.#open.sourceFacts);
    if (tables.some(({ source }) => tableKey(source.schema, source.name) === key)) {
      const label = tableLabel(schema, name);
      throw reshaped(`table ${label} has joined the replicated ones and is to be copied`, label);
    }
  }

  #planNow(relation: Relation): TablePlan {
    const key = tableKey(relation.schema, relation.name);
    // Attached after the start, and gone again or renamed since: it stands under the name that it had.
    const table = this.#bySource.get(key) ?? {
      columns: relation.columns.map((column) => column.name),
      computed: [],
      columnList: false,
      sharedBy: 1,
      target: { schema: relation.schema, name: relation.name },
      publishes: "all" as const,
    };
    return planTable({
      relation,
      table,
      target: this.#targetTables.get(tableKey(table.target.schema, table.target.name)),
      copyLsn: this.#copyLsns?.get(key),
      sourceTypes: this.#sourceTypes,
      missingColumn: this.#context.config.tables.missingColumn,
    });
  }

  async #readTargetAgain(): Promise<void> {
    const tables = await readTables(this.#open.control, this.#open.targetFacts.version);
    this.#targetTables = new Map(tables.map((table) => [tableKey(table.schema, table.name), table]));
  }
}

function reshaped(message: string, subject: string): ErserverError {
  return new ErserverError("ERS-509", message, {
    subject,
    remedy: "Nothing to do: the pipeline is opened anew by itself.",
  });
}
