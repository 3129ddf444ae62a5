import { readConsumer, readPending } from "../capture/trigger/consumers.ts";
import { readOverdue } from "../capture/trigger/log-budget.ts";
import { parseTargetSnapshot } from "../capture/trigger/snapshot.ts";
import { formatLsn, type Lsn, maxLsn } from "../change/lsn.ts";
import type { Config, TargetConfig } from "../config/config.ts";
import { toErserverError } from "../errors/erserver-error.ts";
import { readTables } from "../postgres/catalog.ts";
import { lockQuery } from "../postgres/advisory-lock.ts";
import { connectControl, type ControlSession, type SessionOptions } from "../postgres/connect.ts";
import { type CaptureKind, type Selection, selectTables } from "../postgres/selection.ts";
import { readSlot, readWalSender } from "../postgres/slots.ts";
import { readServerFacts, type ServerFacts } from "../postgres/server-facts.ts";
import { slotNameFor } from "../quote/slot-name.ts";
import { onAbort } from "../runtime/abort.ts";
import { schemaExists } from "../store/migrate.ts";
import {
  PipelineStore,
  type PipelineState,
  type Progress,
  type Registration,
  type StoredError,
} from "../store/pipeline-store.ts";
import { readBeacon } from "./beacon.ts";
import { columnModeProblem, readColumnMode } from "./column-mode.ts";
import type { Problem } from "./limits.ts";
import { budgetProblem } from "./log-budget.ts";
import { notInitialized } from "./pause.ts";

/** A pipeline as anybody sees it who may connect to both sides. */
export interface TargetStatus {
  readonly name: string;
  readonly state: PipelineState;
  readonly since: Date | undefined;
  /** Which side is offline. */
  readonly side: "source" | "target" | undefined;
  readonly error: StoredError | undefined;
  /** WAL of the source that the target does not cover yet; 0 when the source is idle. */
  readonly lagBytes: number | undefined;
  readonly lagSeconds: number | undefined;
  readonly appliedLsn: Lsn | undefined;
  /** Counts are undefined while the target cannot be asked. */
  readonly transactions: number | undefined;
  readonly rows: number | undefined;
  readonly conflicts: number | undefined;
  readonly replays: number | undefined;
  /** How changes are had from the source; undefined while the target cannot be asked. */
  readonly capture: CaptureKind | undefined;
  /** WAL that the source keeps for the slot; with trigger capture what the logs of its tables take. */
  readonly retainedWalBytes: number | undefined;
  readonly slot:
    | { readonly name: string; readonly active: boolean; readonly walStatus: string | undefined }
    | undefined;
  readonly tables: { readonly total: number | undefined; readonly copied: number | undefined };
  readonly problems: readonly Problem[];
  /** A replicator serves the target now. */
  readonly running: boolean;
}

/** The source, looked at once for all targets. */
interface SourceView {
  readonly session: ControlSession;
  readonly facts: ServerFacts;
  readonly selectionFor: (capture: CaptureKind) => Selection;
}

/** Never rejects because a server is away: that is what the status says. What it says after the signal is of no use. */
export async function readStatus(config: Config, signal?: AbortSignal): Promise<TargetStatus[]> {
  const options: SessionOptions = {
    applicationName: "erserver status",
    timeoutMs: config.timeoutMs,
    ...(signal === undefined ? {} : { signal }),
  };
  const source = await viewSource(config, options);
  const session = source instanceof Error ? undefined : source.session;
  using _giveUp = onAbort(signal, () => session?.destroy());
  try {
    return await Promise.all(config.targets.map((target) => targetStatus(config, target, source, options)));
  } finally {
    await session?.end();
  }
}

async function viewSource(config: Config, options: SessionOptions): Promise<SourceView | Error> {
  let session: ControlSession | undefined;
  using _giveUp = onAbort(options.signal, () => session?.destroy());
  try {
    session = await connectControl(config.source, options);
    const facts = await readServerFacts(session);
    const tables = await readTables(session, facts.version);
    const selectionFor = (capture: CaptureKind): Selection =>
      selectTables(tables, config.tables, facts.version, capture);
    return { session, facts, selectionFor };
  } catch (error) {
    await session?.end();
    return toErserverError(error);
  }
}

async function targetStatus(
  config: Config,
  target: TargetConfig,
  source: SourceView | Error,
  options: SessionOptions,
): Promise<TargetStatus> {
  const reachable = source instanceof Error ? undefined : source;
  const selection = reachable?.selectionFor(config.capture === "trigger" ? "trigger" : "wal");
  const unknown: TargetStatus = {
    name: target.name,
    state: "stopped",
    since: undefined,
    side: undefined,
    error: undefined,
    lagBytes: undefined,
    lagSeconds: undefined,
    appliedLsn: undefined,
    transactions: undefined,
    rows: undefined,
    conflicts: undefined,
    replays: undefined,
    capture: undefined,
    retainedWalBytes: undefined,
    slot: undefined,
    tables: { total: selection?.tables.length, copied: undefined },
    problems: selection?.problems ?? [],
    running: false,
  };
  let base = unknown;
  let control: ControlSession | undefined;
  using _giveUp = onAbort(options.signal, () => control?.destroy());
  try {
    const slot =
      reachable === undefined
        ? undefined
        : await readSlot(reachable.session, reachable.facts.version, slotNameFor(target.name));
    if (slot !== undefined) {
      const { name, activePid, walStatus, retainedBytes } = slot;
      base = {
        ...unknown,
        retainedWalBytes: retainedBytes,
        slot: { name, active: activePid !== undefined, walStatus: walStatus ?? undefined },
      };
    }
    control = await connectControl(target.conninfo, options);
    const store = new PipelineStore(control, target.name);
    const registration = (await schemaExists(control)) ? await store.registration() : undefined;
    if (registration === undefined) throw notInitialized(target.name);
    const progress = await store.progress();
    const selected = reachable?.selectionFor(registration.capture);
    const heard = await hearReplicator(control, reachable, registration, config, target.name);
    const states = await store.tableStates();
    const copied = states.filter(({ state }) => state === "finished_copy").length;
    const found = {
      ...base,
      running: heard.running,
      capture: registration.capture,
      appliedLsn: progress?.lsn,
      transactions: progress?.transactions ?? 0,
      rows: progress?.rows ?? 0,
      conflicts: progress?.conflicts ?? 0,
      replays: progress?.replays ?? 0,
      tables: { total: Math.max(selected?.tables.length ?? 0, states.length), copied },
      problems: selected?.problems ?? [],
    };
    if (reachable === undefined) {
      const since = registration.state === "offline" ? registration.stateSince : undefined;
      return { ...found, state: "offline", side: "source", since, error: outage(source, "source") };
    }
    const problems =
      registration.capture === "trigger" && selected !== undefined
        ? await readTriggerProblems(reachable.session, selected, registration, config)
        : [];
    const lag =
      progress === undefined
        ? {}
        : registration.capture === "trigger"
          ? await readTriggerLag(reachable, registration, progress)
          : await readLag(reachable, registration, progress, heard.state);
    return { ...found, ...heard, ...lag, problems: [...found.problems, ...problems] };
  } catch (thrown) {
    const error = toErserverError(thrown);
    if (error.code === "ERS-407") return { ...base, error: outage(error, undefined) };
    // Only a replicator that is running knows since when.
    const since = await (reachable && readBeacon(reachable.session, target.name))?.catch(() => undefined);
    const running = since !== undefined;
    return { ...base, state: "offline", side: "target", since, running, error: outage(error, "target") };
  } finally {
    await control?.end();
  }
}

/** Between two attempts nobody holds the target's lock: this long at the most (see pipeline.ts), and some more. */
const LONGEST_PAUSE_MS = 10_000;

/**
 * What is on record is a replicator's word, and counts as long as there is one: it holds the target's lock, or, between
 * attempts, has recorded an outage lately or keeps its beacon on the source.
 */
async function hearReplicator(
  control: ControlSession,
  source: SourceView | undefined,
  registration: Registration,
  config: Config,
  name: string,
): Promise<Pick<TargetStatus, "state" | "since" | "side" | "error" | "running">> {
  const { state, stateSince, error, silentSeconds } = registration;
  const [applier] = await control.query(
    `select extract(epoch from pg_catalog.clock_timestamp() - a.backend_start)::float8::text as age
     from (${lockQuery("apply", name)}) as l left join pg_catalog.pg_stat_activity a on a.pid = l.pid`,
  );
  const lately = silentSeconds * 1000 < 2 * config.timeoutMs + LONGEST_PAUSE_MS;
  if (state === "offline" && lately)
    return { state, since: stateSince, side: error?.side, error, running: true };
  if (applier === undefined) {
    const missed = source && (await readBeacon(source.session, name));
    return missed === undefined
      ? { state: "stopped", since: stateSince, side: undefined, error, running: false }
      : { state: "offline", since: missed, side: "target", error: undefined, running: true };
  }
  // Not seen without pg_read_all_stats by another role than the replicator's.
  const age = applier["age"] == null ? Number.POSITIVE_INFINITY : Number(applier["age"]);
  const opening = age < silentSeconds || state === "offline" || state === "stopped";
  return opening
    ? { state: "catching-up", since: undefined, side: undefined, error: undefined, running: true }
    : { state, since: stateSince, side: undefined, error: undefined, running: true };
}

/**
 * A replicator that streams reports its position all the time, also over WAL that holds nothing for it: an idle
 * source has no lag. What it has waited for longer than a second is on record; below that the source itself measures
 * the delay of what it has sent (replay_lag). Without a replicator the lag is the age of what the target has last.
 */
async function readLag(
  source: SourceView,
  { slot, behindSince }: Registration,
  progress: Progress,
  state: PipelineState,
): Promise<Pick<TargetStatus, "lagBytes" | "lagSeconds" | "appliedLsn">> {
  const sender = await readWalSender(source.session, slot);
  const appliedLsn = maxLsn(progress.lsn, sender?.replayLsn ?? progress.lsn);
  const [row] = await source.session.query(
    `select greatest(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), $1), 0)::bigint as bytes,
       extract(epoch from pg_catalog.clock_timestamp())::float8::text as now`,
    [formatLsn(appliedLsn)],
  );
  const lagBytes = Number(row?.["bytes"]);
  const secondsSince = (time: Date): number => Math.max(0, Number(row?.["now"]) - time.getTime() / 1000);
  const seenAt = state.startsWith("catching-up")
    ? progress.commitTime
    : newer(progress.commitTime, progress.appliedAt);
  const age = seenAt === undefined ? undefined : secondsSince(seenAt);
  const waited = behindSince === undefined ? undefined : secondsSince(behindSince);
  const delay = state === "streaming" ? (sender?.replayLagSeconds ?? 0) : age;
  const lagSeconds = lagBytes === 0 ? 0 : isFollowing(state) ? (waited ?? delay) : age;
  return { lagBytes, lagSeconds, appliedLsn };
}

/** A target that misses nothing that is recorded has no lag; else it is as old as the state of the source that it shows. */
async function readTriggerLag(
  { session }: SourceView,
  { slot }: Registration,
  { snapshot, commitTime }: Progress,
): Promise<Partial<Pick<TargetStatus, "lagSeconds" | "retainedWalBytes">>> {
  const consumer = await readConsumer(session, slot);
  if (consumer === undefined || snapshot === undefined) return {};
  const { missing, bytes } = await readPending(session, consumer, parseTargetSnapshot(snapshot).base);
  const [row] = await session.query(
    "select extract(epoch from pg_catalog.clock_timestamp())::float8::text as now",
  );
  const age = commitTime === undefined ? undefined : Number(row?.["now"]) - commitTime.getTime() / 1000;
  const lag = missing ? age : 0;
  return { retainedWalBytes: bytes, ...(lag === undefined ? {} : { lagSeconds: Math.max(0, lag) }) };
}

async function readTriggerProblems(
  session: ControlSession,
  selection: Selection,
  { slot }: Registration,
  { captureLog }: Config,
): Promise<Problem[]> {
  const byColumn = await readColumnMode(session, selection);
  const overdue = await readOverdue(session, captureLog);
  return [
    ...byColumn.map(columnModeProblem),
    ...overdue
      .filter(({ pipeline }) => pipeline === slot)
      .map((one) => budgetProblem(one, captureLog.exceeded)),
  ];
}

function isFollowing(state: PipelineState): boolean {
  return state === "streaming" || state.startsWith("catching-up");
}

function newer(a: Date | undefined, b: Date | undefined): Date | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return a > b ? a : b;
}

function outage(thrown: unknown, side: StoredError["side"]): StoredError {
  const { code, message, remedy, subject } = toErserverError(thrown);
  return { code, message, remedy, subject, side };
}
