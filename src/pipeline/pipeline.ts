import { setTimeout as sleep } from "node:timers/promises";
import type { Lsn } from "../change/lsn.ts";
import type { Config, TargetConfig } from "../config/config.ts";
import { type ErserverError, toErserverError } from "../errors/erserver-error.ts";
import type { Logger } from "../observability/log.ts";
import { backoffDelay, logLevelForAttempt } from "../runtime/backoff.ts";
import type { CaptureKind } from "../postgres/selection.ts";
import type { PipelineState, StoredError } from "../store/pipeline-store.ts";
import { Beacon } from "./beacon.ts";
import type { CopyProgress } from "./copy-jobs.ts";
import { recordFailure, sideOf, storedError } from "./failure-record.ts";
import { firstCopy, type WhenOccupied } from "./first-copy.ts";
import { follow } from "./follow.ts";
import type { Problem } from "./limits.ts";
import { contextOf, type PipelineContext } from "./context.ts";
import { BUDGET_CHECK_MS, watchLogBudget } from "./log-budget.ts";
import { connectPrimary } from "./sides.ts";
import { openPipeline, type OpenPipeline } from "./open-pipeline.ts";

/** What a pipeline does now, as this process knows it. */
export interface PipelineStatus {
  readonly name: string;
  readonly state: PipelineState;
  readonly since: Date;
  /** Which side is offline. */
  readonly side: "source" | "target" | undefined;
  readonly error: StoredError | undefined;
  /** How changes are had from the source; undefined before it was connected. */
  readonly capture: CaptureKind | undefined;
  readonly appliedLsn: Lsn | undefined;
  readonly copy: CopyProgress | undefined;
  /** Applied by this process. */
  readonly transactions: number;
  readonly rows: number;
}

export interface PipelineOptions {
  readonly config: Config;
  readonly target: TargetConfig;
  readonly log: Logger;
  /** What to do about target tables that have rows before the first copy; by default they are refused. */
  readonly occupied?: WhenOccupied;
  /** With trigger capture: only these of the source's tables, by `tableKey`; what happens to the others meanwhile comes when they are asked for again. */
  readonly only?: ReadonlySet<string> | undefined;
  /** End when the target has everything that commits before it. */
  readonly untilLsn?: Lsn;
  /** With trigger capture: the first changes are those up to this exported snapshot. */
  readonly toSnapshot?: string | undefined;
  readonly onStatus?: (status: PipelineStatus) => void;
}

/** A server that comes back is noticed within five seconds; asking it that often costs it nothing. */
const BACKOFF = { base: 200, max: 5_000, random: Math.random };

/** A connection that lasted this long was a success: the next failure is the first again. */
const STABLE_MS = 10_000;

/**
 * One source, one target. Copies, follows, and after an outage of either side goes on by itself: `run` only
 * rejects with an error that needs somebody.
 */
export class Pipeline {
  readonly #options: PipelineOptions;
  readonly #beacon: Beacon;
  #context: PipelineContext;
  readonly #warned = new Set<string>();
  /** performance.now() when both sides had been connected and checked in this attempt. */
  #openedMs: number | undefined;
  #status: PipelineStatus;
  #budgetMs = performance.now();

  constructor(options: PipelineOptions) {
    this.#options = options;
    const { config, target, log } = options;
    this.#beacon = new Beacon({ source: config.source, target: target.name, timeoutMs: config.timeoutMs });
    this.#context = contextOf({ config, target, log });
    this.#status = {
      name: options.target.name,
      state: "catching-up",
      since: new Date(),
      side: undefined,
      error: undefined,
      capture: undefined,
      appliedLsn: undefined,
      copy: undefined,
      transactions: 0,
      rows: 0,
    };
  }

  get status(): PipelineStatus {
    return this.#status;
  }

  /** Resolves after a clean stop by the signal, or when `until` is reached. Rejects with what somebody has to mend. */
  async run(signal: AbortSignal): Promise<void> {
    this.#context = { ...this.#context, signal };
    try {
      await this.#runUntilStopped(signal);
    } finally {
      await this.#beacon.putOut();
    }
  }

  async #runUntilStopped(signal: AbortSignal): Promise<void> {
    let attempt = 0;
    while (!signal.aborted) {
      this.#openedMs = undefined;
      try {
        await this.#attempt(signal);
        return;
      } catch (thrown) {
        if (signal.aborted) return;
        const error = toErserverError(thrown);
        if (error.entry.retry === "stop") {
          this.#setStatus({ state: "stopped", side: undefined, error: storedError(this.#context, error) });
          throw error;
        }
        const lastedMs = this.#openedMs === undefined ? 0 : performance.now() - this.#openedMs;
        attempt = lastedMs > STABLE_MS ? 1 : attempt + 1;
        this.#offline(error, attempt);
        await sleep(backoffDelay(attempt, BACKOFF), undefined, { signal }).catch(() => {});
      }
    }
  }

  async #attempt(signal: AbortSignal): Promise<void> {
    await using open = await openPipeline(this.#context);
    this.#openedMs = performance.now();
    this.#setStatus({ capture: open.changes.kind });
    await this.#beacon.putOut();
    for (const problem of open.problems) this.#warnOnce(problem);
    try {
      await this.#copyAndFollow(open, signal);
    } catch (error) {
      await recordFailure(open.store, this.#context, toErserverError(error));
      throw error;
    }
  }

  /** A pipeline is opened anew after every outage: what has not changed is not said again. */
  #warnOnce({ message, code, remedy }: Problem): void {
    if (this.#warned.has(message)) return;
    this.#warned.add(message);
    this.#context.log.warn(message, { code, remedy });
  }

  async #copyAndFollow(open: OpenPipeline, signal: AbortSignal): Promise<void> {
    const { occupied = "refuse", only, untilLsn, toSnapshot } = this.#options;
    await firstCopy(this.#context, open, {
      occupied,
      only,
      signal,
      onStart: async () => {
        this.#setStatus({ state: "copying", side: undefined, error: undefined });
        await open.store.setState("copying", undefined);
      },
      onProgress: (copy) => this.#setStatus({ copy }),
    });
    if (signal.aborted) return;
    let recording = Promise.resolve();
    await follow(this.#context, open, {
      signal,
      untilLsn,
      toSnapshot,
      only,
      onApplied: (applied) =>
        this.#setStatus({
          appliedLsn: applied.sourceLsn,
          transactions: this.#status.transactions + applied.transactions,
          rows: this.#status.rows + applied.rows,
        }),
      onState: (state) => {
        this.#setStatus({ state, side: undefined, error: undefined });
        recording = recording.then(() => open.store.setState(state, undefined)).catch(() => {});
      },
    });
    await recording;
    await open.store.setState("stopped", undefined);
  }

  #offline(error: ErserverError, attempt: number): void {
    const side = sideOf(this.#context, error);
    this.#setStatus({ state: "offline", side, error: storedError(this.#context, error) });
    // A target that another replicator serves is there to be asked.
    if (side === "target" && error.code !== "ERS-508") {
      this.#beacon.light(this.#status.since);
      this.#watchLog();
    }
    this.#context.log[logLevelForAttempt(attempt)](error.message, { code: error.code, side, attempt });
  }

  /** Whatever is kept for a target that stays away is kept on the source. */
  #watchLog(): void {
    if (this.#context.config.capture === "wal" || performance.now() - this.#budgetMs < BUDGET_CHECK_MS)
      return;
    this.#budgetMs = performance.now();
    const check = async (): Promise<void> => {
      await using source = await connectPrimary(this.#context, "source");
      await watchLogBudget(source, this.#context);
    };
    // A source that is away is told otherwise.
    check().catch(() => {});
  }

  #setStatus(change: Partial<PipelineStatus>): void {
    const since =
      change.state === undefined || change.state === this.#status.state ? this.#status.since : new Date();
    this.#status = { ...this.#status, ...change, since };
    this.#options.onStatus?.(this.#status);
  }
}
