import { availableParallelism } from "node:os";
import { Applier, type Applied, type ParallelOptions } from "../apply/applier.ts";
import { rowKeysOf } from "../apply/row-keys.ts";
import { openWorkerSession } from "../apply/target-session.ts";
import { HERE } from "../capture/trigger/trigger-capture.ts";
import type { Delivery, Group } from "../change/group.ts";
import { formatLsn, type Lsn, maxLsn, parseLsn } from "../change/lsn.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { tableKey, tableLabel } from "../postgres/catalog.ts";
import { blockersOf } from "../postgres/advisory-lock.ts";
import { type Constraints, readConstraints } from "../postgres/constraints.ts";
import { MemoryTransport } from "../transport/memory.ts";
import { FlushTracker } from "./flush-tracker.ts";
import type { WireConnection } from "../wire/connection.ts";
import type { Capture } from "./change-source.ts";
import { type PipelineContext, sessionOptions } from "./context.ts";
import type { OpenPipeline } from "./open-pipeline.ts";
import { Planner } from "./planner.ts";
import { Requests } from "./requests.ts";

export type FlowState = "catching-up" | "catching-up (bulk)" | "streaming" | "paused";

export interface FollowOptions {
  readonly signal: AbortSignal;
  /** Stop before the first transaction that commits at or after it; with trigger capture, behind the first sync. */
  readonly untilLsn: Lsn | undefined;
  /** With trigger capture: where that sync goes, if not to now. */
  readonly toSnapshot: string | undefined;
  /** The target has everything before `appliedLsn`; `transactions` and `rows` more than at the last call. */
  /** With trigger capture: only these of the source's tables, by `tableKey`. */
  readonly only?: ReadonlySet<string> | undefined;
  readonly onApplied: (applied: Pick<Applied, "sourceLsn" | "transactions" | "rows">) => void;
  /** Called with every change of the flow's state. */
  readonly onState: (state: FlowState) => void;
}

/** Held in memory for one pipeline, with the groups that are being written; and for each session that writes at the same time. */
const CAPACITY_BYTES = 16 * 1024 * 1024;
const WORKER_BYTES = 4 * 1024 * 1024;

const AUTO_WORKERS = 4;
/** A target whose answers take longer is far. */
const LONG_TRIP_MS = 1;

/** Of a round trip to a far target, and at most, a group grows before it is sent behind others: it need not wait for their answers. */
const GROW_SHARE = 1 / 16;
const MOST_GROW_MS = 2;

/** While commits wait to be flushed the target is asked this often; the WAL writer flushes every 200 ms. */
const FLUSH_POLL_MS = 100;

/**
 * The target's position follows an idle source at most this often: each time is a small transaction. With trigger capture nothing else tells
 * whoever waits for the target where it is.
 */
const IDLE_ADVANCE_MS = { wal: 5_000, trigger: 1_000 };

/** Behind by more than this, with work waiting, is catching up. */
const CATCHING_UP_MS = 10_000;

/** How often it is asked whether the source still has what we made there. */
const SOURCE_CHECK_MS = 10_000;

/** After a transaction that had to commit first, the source is not asked for any in progress for so long; twice as long after another. */
const COMMIT_FIRST_MS = 600_000;
const LONGEST_COMMIT_FIRST_MS = 86_400_000;

/** Behind by more than this is put on record for `status`; less is told by the source's own replay_lag. */
const BEHIND_MS = 1_000;

/**
 * Follows the source until the signal, or `untilLsn`: takes what the capture delivers, applies it, and tells the
 * source what is durable. Resolves after the group in flight; throws what broke.
 */
export async function follow(
  context: PipelineContext,
  open: OpenPipeline,
  options: FollowOptions,
): Promise<void> {
  const { config, target, log } = context;
  const binary = usesBinary(context, open);
  const progress = await open.store.progress();
  if (progress === undefined) throw new Error("no progress is recorded");
  // A predecessor's last commits may not be flushed yet: a crash of the target could still take them back.
  const [wal] = await open.control.query("select pg_catalog.pg_current_wal_insert_lsn() as lsn");
  let flow: Flow | undefined;
  const hear = (connection: WireConnection): void =>
    void connection.closed.then((error) => transport.fail(error));
  const tripMs = await shortestTrip(open.session.connection);
  const { distance } = config.apply;
  const far = distance === "auto" ? tripMs > LONG_TRIP_MS : distance === "far";
  log.debug(`the target is ${far ? "far" : "near"}: a round trip takes ${tripMs.toFixed(1)} ms`);
  const parallel = await parallelOptions(context, open, far, hear);
  const transport = new MemoryTransport({
    capacityBytes: CAPACITY_BYTES + (parallel.workers - 1) * WORKER_BYTES,
    groupTransactions: config.apply.mode === "transaction" ? 1 : config.apply.group.transactions,
    groupBytes: config.apply.group.bytes,
    groupDelayMs: config.apply.group.delayMs,
    delayMs: config.apply.delayMs,
    // Any sync from here on has what was there before.
    untilLsn:
      options.untilLsn !== undefined && open.changes.kind === "trigger"
        ? ((progress.lsn + 1n) as Lsn)
        : options.untilLsn,
  });
  const states = await open.store.tableStates();
  const planner = new Planner(context, open, binary, states);
  await using capture = await open.changes.start({
    progress,
    states,
    newestCopyLsn: planner.copies.newestLsn,
    sink: transport,
    binary,
    toSnapshot: options.toSnapshot,
    only: options.only,
    onGear: () => flow?.gearChanged(),
  });
  await using applier = new Applier({
    connection: open.session.connection,
    pipeline: target.name,
    progressLsn: progress.lsn,
    conflict: config.apply.conflict,
    binary,
    // Where foreign keys and triggers fire the order of statements is theirs to judge.
    write: open.session.replicaRole ? config.apply.write : "rows",
    far,
    planFor: (relation, inProgress) => planner.plan(relation, inProgress),
    copies: planner.copies,
    snapshotAt: (lsn) => capture.snapshotAt(lsn),
    parallel,
  });
  const stop = (): void => transport.wake();
  options.signal.addEventListener("abort", stop);
  capture.failed.catch((error: unknown) => transport.fail(error as Error));
  hear(open.session.connection);
  flow = new Flow({
    capture,
    applier,
    transport,
    options,
    progressLsn: progress.lsn,
    targetLsn: parseLsn(wal?.["lsn"] ?? ""),
    growMs: Math.min(tripMs * GROW_SHARE, MOST_GROW_MS),
    open,
  });
  try {
    await using requests = await Requests.open(open.store, {
      onPoll: async () => {
        await flow?.reportBehind();
        await flow?.checkSource();
      },
      onError: (error) => transport.fail(error),
    });
    await flow.run(requests);
  } catch (error) {
    if (error instanceof ErserverError && error.code === "ERS-510") refuseStreaming(context);
    throw error;
  } finally {
    options.signal.removeEventListener("abort", stop);
  }
}

function refuseStreaming({ streaming }: PipelineContext): void {
  const restMs = Math.min(COMMIT_FIRST_MS * 2 ** streaming.refusals, LONGEST_COMMIT_FIRST_MS);
  streaming.refusals++;
  streaming.refusedUntilMs = performance.now() + restMs;
}

/** The shortest of some round trips, in milliseconds: a busy machine makes one or another long. */
async function shortestTrip(connection: WireConnection): Promise<number> {
  let shortestMs = Number.POSITIVE_INFINITY;
  for (let round = 0; round < 3 && shortestMs > LONG_TRIP_MS; round++) {
    const startMs = performance.now();
    await connection.query("select");
    shortestMs = Math.min(shortestMs, performance.now() - startMs);
  }
  return shortestMs;
}

/** Written by several at once on two processors that everything shares, a backlog is drained no sooner: see ADR 11. */
function workersFor(far: boolean): number {
  return far || availableParallelism() > 2 ? AUTO_WORKERS : 1;
}

/** How the applier gets more sessions, and knows what it must not write at the same time. */
async function parallelOptions(
  context: PipelineContext,
  { control, targetFacts, session }: OpenPipeline,
  far: boolean,
  hear: (connection: WireConnection) => void,
): Promise<ParallelOptions> {
  const { config, target, log, ownBackends } = context;
  const { version } = targetFacts;
  const { workers: wanted } = config.apply;
  const workers = wanted === "auto" ? workersFor(far) : wanted;
  const constraints = workers > 1 ? await readConstraints(control, version, session.replicaRole) : undefined;
  return {
    workers,
    connect: async () => {
      const { conninfo, name: pipeline } = target;
      const connection = await openWorkerSession({ conninfo, pipeline, version, ...sessionOptions(context) });
      ownBackends.target.add(connection.backendPid);
      hear(connection);
      return connection;
    },
    keysOf: (plan) => rowKeysOf(plan, constraints as Constraints),
    blockersOf: (backendPid) => blockersOf(control, backendPid),
    onRefused: (reason) => log.info(`no more sessions to write with: ${reason.message}`),
  };
}

interface FlowParts {
  readonly capture: Capture;
  readonly applier: Applier;
  readonly transport: MemoryTransport;
  readonly options: FollowOptions;
  readonly open: OpenPipeline;
  readonly progressLsn: Lsn;
  /** End of the target's WAL, in which `progressLsn` is recorded. */
  readonly targetLsn: Lsn;
  /** So long a group grows, in milliseconds, when it need not wait for what is in front of it. */
  readonly growMs: number;
}

/** The loop, and what it knows. */
class Flow {
  readonly #parts: FlowParts;
  readonly #tracker = new FlushTracker();
  /** Taken, and begun while the group before it is written, in order. */
  readonly #ahead: Group[] = [];
  #appliedLsn: Lsn;
  #advancedMs = Number.NEGATIVE_INFINITY;
  #state: FlowState | undefined;
  /** What is on record. */
  #behindSince: number | undefined;
  #checkedMs = performance.now();

  constructor(parts: FlowParts) {
    this.#parts = parts;
    this.#appliedLsn = parts.progressLsn;
    this.#tracker.committed(parts.progressLsn, parts.targetLsn);
  }

  async run(requests: Requests): Promise<void> {
    const { transport, options, capture } = this.#parts;
    this.#catchUp();
    await this.#parts.open.store.setBehind(undefined);
    options.onApplied({ sourceLsn: this.#appliedLsn, transactions: 0, rows: 0 });
    for (;;) {
      // What is begun is finished first.
      if (options.signal.aborted && this.#ahead.length === 0) {
        // A transaction that is open on the target is rolled back with the session, and comes again whole.
        if (transport.midTransaction) return;
        break;
      }
      if (requests.paused && !transport.midTransaction && this.#ahead.length === 0) {
        transport.throwIfFailed();
        this.#setState("paused");
        await transport.sleep(FLUSH_POLL_MS);
        await this.#pollFlush();
        continue;
      }
      if (this.#state === "paused") this.#catchUp();
      await this.#hold(requests);
      const delivery = await this.#take(requests);
      if (delivery === undefined) await this.#pollFlush();
      else if (delivery.kind === "group") {
        const { group } = delivery;
        const applied = await this.#parts.applier.apply(group, (answered, eager) =>
          this.#lookAhead(requests, answered, eager),
        );
        transport.release(group);
        if (applied !== undefined) this.#applied(applied, group.members.at(-1)?.transaction.commitTime ?? 0);
      } else if (delivery.kind === "idle") await this.#idle(delivery.lsn, delivery.commitTime);
      else if (delivery.kind === "held") await requests.reportHeld(delivery.lsn);
      else {
        await this.#advance(maxLsn(this.#appliedLsn, delivery.lsn));
        break;
      }
      capture.acknowledge(this.#appliedLsn, this.#tracker.durableLsn, transport.empty);
    }
    await this.#settle();
  }

  async #take(requests: Requests): Promise<Delivery | undefined> {
    const group = this.#ahead.shift();
    if (group !== undefined) return { kind: "group", group };
    const waitMs = this.#tracker.waiting || requests.holdLsn !== undefined ? FLUSH_POLL_MS : 1_000;
    return this.#parts.transport.take(waitMs, this.#isOfWal ? requests.holdLsn : undefined);
  }

  get #isOfWal(): boolean {
    return this.#parts.open.changes.kind === "wal";
  }

  /** Where no position says where to stand, the capture goes there and no further. */
  async #hold(requests: Requests): Promise<void> {
    if (this.#isOfWal) return;
    const { holdLsn, holdSnapshot } = requests;
    const lsn = this.#parts.capture.holdAt(holdLsn === undefined ? undefined : (holdSnapshot ?? HERE));
    if (holdLsn !== undefined && lsn !== undefined && this.#appliedLsn >= lsn)
      await requests.reportHeld(holdLsn);
  }

  /** The next group, unless somebody wants a stop behind the one that is being written. */
  async #lookAhead(
    { paused, holdLsn }: Requests,
    answered: Promise<unknown>,
    eager: boolean,
  ): Promise<Group | undefined> {
    const { transport, options, growMs } = this.#parts;
    if (paused || holdLsn !== undefined || options.signal.aborted) return undefined;
    const group = await transport.takeAhead(answered, eager ? growMs : undefined);
    if (group !== undefined) this.#ahead.push(group);
    return group;
  }

  /** Puts on record since when the target misses something, when that has changed. */
  async reportBehind(): Promise<void> {
    const { transport, open } = this.#parts;
    const oldest = transport.oldestCommitTime;
    const behindMs = oldest === undefined ? 0 : Date.now() - oldest / 1000;
    if (behindMs > CATCHING_UP_MS && this.#state === "streaming") this.#catchUp();
    const since = behindMs > BEHIND_MS ? oldest : undefined;
    if (since === this.#behindSince) return;
    this.#behindSince = since;
    await open.store.setBehind(since === undefined ? undefined : new Date(since / 1000));
  }

  async checkSource(): Promise<void> {
    if (performance.now() - this.#checkedMs < SOURCE_CHECK_MS) return;
    this.#checkedMs = performance.now();
    await this.#parts.open.changes.requireUnchanged();
  }

  #applied(applied: Applied, commitTime: number): void {
    this.#appliedLsn = applied.sourceLsn;
    this.#committed(applied);
    this.#parts.options.onApplied(applied);
    if (this.#parts.transport.empty && isRecent(commitTime)) this.#caughtUp();
  }

  #committed(applied: Applied): void {
    this.#tracker.committed(applied.sourceLsn, applied.targetLsn);
    this.#tracker.flushed(applied.targetFlushedLsn);
  }

  async #idle(lsn: Lsn, commitTime: number | undefined): Promise<void> {
    if (commitTime === undefined || isRecent(commitTime)) this.#caughtUp();
    if (lsn <= this.#appliedLsn) return;
    this.#appliedLsn = lsn;
    this.#parts.options.onApplied({ sourceLsn: lsn, transactions: 0, rows: 0 });
    if (this.#mayAdvance) await this.#advance(lsn);
  }

  get #mayAdvance(): boolean {
    return performance.now() - this.#advancedMs >= IDLE_ADVANCE_MS[this.#parts.open.changes.kind];
  }

  /** The slot never gets ahead of what the target has on record: that is how a lost or foreign slot is told. */
  async #advance(lsn: Lsn): Promise<void> {
    if (lsn <= this.#parts.applier.progressLsn) return;
    this.#advancedMs = performance.now();
    this.#committed(await this.#parts.applier.advance(lsn));
    this.#appliedLsn = lsn;
  }

  async #pollFlush(): Promise<void> {
    const { capture, applier, transport } = this.#parts;
    // In the middle of a transaction also to keep it: the target ends one that is idle for long.
    if (this.#tracker.waiting || transport.midTransaction) this.#tracker.flushed(await applier.flushedLsn());
    capture.acknowledge(this.#appliedLsn, this.#tracker.durableLsn);
    // The position is a transaction of its own, and would commit the part that is written.
    if (transport.midTransaction) return;
    if (this.#appliedLsn > applier.progressLsn && this.#mayAdvance) await this.#advance(this.#appliedLsn);
  }

  /** Before a clean end: what was committed becomes durable, and the source hears of it. */
  async #settle(): Promise<void> {
    const { capture, applier } = this.#parts;
    await this.#advance(this.#appliedLsn);
    for (let round = 0; this.#tracker.waiting && round < 20; round++) {
      this.#tracker.flushed(await applier.flushedLsn());
      if (this.#tracker.waiting) await new Promise((resolve) => setTimeout(resolve, 50));
    }
    await capture.settle(this.#appliedLsn, this.#tracker.durableLsn);
  }

  gearChanged(): void {
    if (this.#state !== "paused") this.#catchUp();
  }

  #catchUp(): void {
    this.#setState(this.#parts.capture.gear === "bulk" ? "catching-up (bulk)" : "catching-up");
  }

  /** What is read in bulk is behind, however new it is. */
  #caughtUp(): void {
    if (this.#parts.capture.gear === "stream") this.#setState("streaming");
  }

  #setState(state: FlowState): void {
    if (this.#state === state) return;
    if ((state === "paused") !== (this.#state === "paused"))
      this.#parts.capture.standing = state === "paused";
    this.#state = state;
    this.#parts.options.onState(state);
  }
}

function isRecent(commitTime: number): boolean {
  return Date.now() - commitTime / 1000 < CATCHING_UP_MS;
}

/**
 * Bytes instead of text, when every column of every table means the same on both servers as bytes. The target's
 * tables count too: they may have a column that the stream still brings though the source has dropped it.
 */
function usesBinary({ config, log }: PipelineContext, open: OpenPipeline): boolean {
  if (config.binary === "off") return false;
  const supported = open.changes.kind === "trigger" || open.sourceFacts.version >= 140_000;
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
