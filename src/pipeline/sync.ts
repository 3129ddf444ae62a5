import { setTimeout as sleep } from "node:timers/promises";
import { formatLsn, type Lsn } from "../change/lsn.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { type CommandOptions } from "./context.ts";
import { emitMarker } from "./marker.ts";
import type { WhenOccupied } from "./first-copy.ts";
import { refusePaused } from "./pause.ts";
import { Pipeline, type PipelineStatus } from "./pipeline.ts";
import { connectSides, hasReached, isServed } from "./sides.ts";

export interface SyncOptions extends CommandOptions {
  readonly signal: AbortSignal;
  /** Milliseconds; undefined waits for ever. */
  readonly timeoutMs?: number;
  /** As of a pipeline. */
  readonly occupied?: WhenOccupied;
  readonly only?: ReadonlySet<string> | undefined;
  readonly onStatus?: (status: PipelineStatus) => void;
}

export interface SyncResult {
  /** Applied by this call. */
  readonly transactions: number;
  readonly rows: number;
  /** A running replicator did it. */
  readonly waitedForOther: boolean;
  /** The source's position when this began, which the target has reached. */
  readonly lsn: Lsn;
  /** Tables were copied. */
  readonly copied: boolean;
}

const POLL_MS = 100;

/** Brings the target to the source's position of this moment; while a replicator serves it, waits for it to get there. */
export async function syncTarget(options: SyncOptions): Promise<SyncResult> {
  await using sides = await connectSides(options);
  const mark = await emitMarker(sides.source);
  const { lsn } = mark;
  const deadline = options.timeoutMs === undefined ? undefined : AbortSignal.timeout(options.timeoutMs);
  const signal = deadline === undefined ? options.signal : AbortSignal.any([options.signal, deadline]);
  let waitedForOther = false;
  for (;;) {
    const registration = await sides.registration();
    refusePaused(registration, options.target.name);
    if (deadline?.aborted === true) throw tooLate(options.target.name, lsn);
    if (signal.aborted) return { transactions: 0, rows: 0, waitedForOther, lsn, copied: false };
    if (await isServed(sides.target, options.target.name)) {
      waitedForOther = true;
      // Not registered yet: whoever serves it has only just begun.
      if (registration !== undefined && (await hasReached(sides, registration, mark)))
        return { transactions: 0, rows: 0, waitedForOther, lsn, copied: false };
      await sleep(POLL_MS, undefined, { signal }).catch(() => {});
    } else {
      const done = await runUntil(options, lsn, signal);
      if (done !== undefined && !signal.aborted) return { ...done, waitedForOther: false, lsn };
    }
  }
}

/** Undefined when another replicator was faster to the target's lock, or the target was paused. */
export async function runUntil(
  {
    config,
    target,
    log,
    occupied,
    only,
    onStatus,
  }: CommandOptions & Pick<SyncOptions, "occupied" | "only" | "onStatus">,
  lsn: Lsn,
  signal: AbortSignal,
  toSnapshot?: string,
): Promise<Pick<SyncResult, "transactions" | "rows" | "copied"> | undefined> {
  const giveUp = new AbortController();
  let copied = false;
  const pipeline = new Pipeline({
    config,
    target,
    log,
    ...(occupied === undefined ? {} : { occupied }),
    only,
    untilLsn: lsn,
    toSnapshot,
    onStatus: (status) => {
      copied ||= status.state === "copying";
      onStatus?.(status);
      if (status.error?.code === "ERS-508" || status.state === "paused") giveUp.abort();
    },
  });
  await pipeline.run(AbortSignal.any([signal, giveUp.signal]));
  if (giveUp.signal.aborted) return undefined;
  const { transactions, rows } = pipeline.status;
  return { transactions, rows, copied };
}

function tooLate(name: string, lsn: Lsn): ErserverError {
  return new ErserverError("ERS-802", `target ${name} did not reach ${formatLsn(lsn)} in time`, {
    subject: name,
    remedy: "See erserver status for what keeps it; give more time with --timeout.",
  });
}
