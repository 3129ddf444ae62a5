import { formatLsn, type Lsn } from "../../change/lsn.ts";
import { formatBytes, formatDuration, plural } from "../../observability/figures.ts";
import type { CopyProgress } from "../../pipeline/copy-jobs.ts";
import type { PipelineStatus } from "../../pipeline/pipeline.ts";
import type { CaptureKind } from "../../postgres/selection.ts";
import type { PipelineState } from "../../store/pipeline-store.ts";
import { type Paint, padEnd } from "./paint.ts";

const STATE_PAINT = {
  copying: "warning",
  "catching-up": "warning",
  "catching-up (bulk)": "warning",
  streaming: "good",
  offline: "bad",
  paused: "warning",
  stopped: "bad",
} as const satisfies Record<PipelineState, keyof Paint>;

const STATE_WIDTH = "catching-up".length;

export function paintState(state: PipelineState, paint: Paint): string {
  return paint[STATE_PAINT[state]](state);
}

/** A position of the WAL; with trigger capture it is the number of a sync. */
export function formatPosition(capture: CaptureKind | undefined, lsn: Lsn): string {
  return capture === "trigger" ? `sync ${lsn}` : formatLsn(lsn);
}

/** `14:02:11`, local time. */
export function clock(time: Date): string {
  return time.toTimeString().slice(0, 8);
}

/** `14:02:11  london  streaming    at 0/15A3F40`: a change of state, with what there is to know about it. */
export function stateLine(status: PipelineStatus, at: Date, nameWidth: number, paint: Paint): string {
  return line(status, at, nameWidth, paint, stateDetail(status));
}

/** What to do about it, for below the line; undefined when there is nothing or the command says it when it ends. */
export function remedyLine({ state, error }: PipelineStatus): string | undefined {
  return error === undefined || state === "stopped" ? undefined : `          → ${error.remedy}`;
}

/** The same for the live block: what the pipeline does now. `copyMs` is how long it has been copying. */
export function liveLine(status: PipelineStatus, nameWidth: number, paint: Paint, copyMs: number): string {
  const applied = `${plural(status.transactions, "transaction")}, ${plural(status.rows, "row")}`;
  const detail =
    status.state === "copying" && status.copy !== undefined
      ? copyText(status.copy, copyMs)
      : status.state === "offline"
        ? stateDetail(status)
        : [applied, stateDetail(status)].filter((part) => part !== "").join(", ");
  return line(status, status.since, nameWidth, paint, detail);
}

function line(
  { name, state }: PipelineStatus,
  time: Date,
  nameWidth: number,
  paint: Paint,
  detail: string,
): string {
  const words = [
    paint.faint(clock(time)),
    padEnd(paint.strong(name), nameWidth),
    padEnd(paintState(state, paint), STATE_WIDTH),
    detail,
  ];
  return words.join("  ").trimEnd();
}

function stateDetail({ state, side, error, capture, appliedLsn, copy }: PipelineStatus): string {
  // Why it has stopped is said in full, with the remedy, when the command reports it.
  if (state === "stopped") return "";
  if (error !== undefined) return `${side === undefined ? "" : `${side}: `}${error.code} ${error.message}`;
  if (state === "copying")
    return copy === undefined ? "" : plural(copy.tablesTotal - copy.tablesDone, "table");
  return appliedLsn === undefined ? "" : `at ${formatPosition(capture, appliedLsn)}`;
}

/** `7 of 12 tables, 45 MB of about 120 MB (38 %), 12 MB/s, 6.2 s left`. */
export function copyText(
  { tablesDone, tablesTotal, bytesDone, bytesTotal, rowsDone }: CopyProgress,
  elapsedMs: number,
): string {
  const words = [`${tablesDone} of ${plural(tablesTotal, "table")}`, plural(rowsDone, "row")];
  // The size on disk is but an estimate of what is sent, dead rows included or compressed.
  const total = Math.max(bytesTotal, bytesDone);
  if (bytesDone > 0)
    words.push(
      `${formatBytes(bytesDone)} of about ${formatBytes(total)} (${Math.floor((bytesDone / total) * 100)} %)`,
    );
  if (bytesDone > 0 && elapsedMs > 0) {
    const rate = bytesDone / elapsedMs;
    words.push(`${formatBytes(rate * 1000)}/s`);
    if (total > bytesDone) words.push(`${formatDuration((total - bytesDone) / rate)} left`);
  }
  return words.join(", ");
}

/** What a pipeline has done, when it has ended without an error. */
export function endLine({ name, capture, appliedLsn, transactions, rows }: PipelineStatus): string {
  const position = appliedLsn === undefined ? "" : `, at ${formatPosition(capture, appliedLsn)}`;
  return `${name}: ended after ${plural(transactions, "transaction")} (${plural(rows, "row")})${position}`;
}

/** The status as one JSON event. */
export function statusEvent(status: PipelineStatus, event: "state" | "copy"): object {
  const { name, state, since, side, error, appliedLsn, copy, transactions, rows } = status;
  return {
    event,
    time: new Date().toISOString(),
    target: name,
    state,
    since: since.toISOString(),
    ...(side === undefined ? {} : { side }),
    ...(error === undefined ? {} : { error }),
    ...(appliedLsn === undefined ? {} : { position: formatLsn(appliedLsn) }),
    ...(event === "copy" && copy !== undefined ? { copy } : {}),
    transactions,
    rows,
  };
}
