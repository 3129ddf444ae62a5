import { formatLsn } from "../../change/lsn.ts";
import { formatBytes, formatCount, formatDuration, plural } from "../../observability/figures.ts";
import type { TargetStatus } from "../../pipeline/read-status.ts";
import { renderFailure } from "./failure.ts";
import type { Paint } from "./paint.ts";
import { formatPosition, paintState } from "./pipeline-lines.ts";
import { renderProblems } from "./problems.ts";
import { type Column, renderTable } from "./table.ts";

const COLUMNS: readonly Column[] = [
  { head: "target" },
  { head: "state" },
  { head: "for", align: "right" },
  { head: "lag", align: "right" },
  { head: "behind", align: "right" },
  { head: "position", align: "right" },
  { head: "transactions", align: "right" },
  { head: "rows", align: "right" },
  { head: "retained", align: "right" },
];

/** What is not known, such as the lag of a target that does not answer. */
const UNKNOWN = "-";

/** One line for each target, and below them what somebody should know or do. */
export function renderStatus(targets: readonly TargetStatus[], now: Date, paint: Paint): string {
  const notes = targets.flatMap((target) => notesOf(target, paint));
  const problems = renderProblems(
    targets.flatMap((target) => target.problems),
    paint,
  );
  const table = renderTable(
    COLUMNS,
    targets.map((target) => cells(target, now, paint)),
    paint,
  );
  return [table, notes.join(""), problems].filter((part) => part !== "").join("\n");
}

function cells(target: TargetStatus, now: Date, paint: Paint): string[] {
  const { since, lagSeconds, lagBytes, appliedLsn, retainedWalBytes } = target;
  return [
    paint.strong(target.name),
    paintState(target.state, paint) + (target.side === undefined ? "" : ` (${target.side})`),
    since === undefined ? UNKNOWN : formatDuration(now.getTime() - since.getTime()),
    lagSeconds === undefined ? UNKNOWN : formatDuration(lagSeconds * 1000),
    lagBytes === undefined ? UNKNOWN : formatBytes(lagBytes),
    appliedLsn === undefined ? UNKNOWN : formatPosition(target.capture, appliedLsn),
    target.transactions === undefined ? UNKNOWN : formatCount(target.transactions),
    target.rows === undefined ? UNKNOWN : formatCount(target.rows),
    retainedWalBytes === undefined ? UNKNOWN : formatBytes(retainedWalBytes),
  ];
}

function notesOf(target: TargetStatus, paint: Paint): string[] {
  const { name, error, tables, slot, running, conflicts, replays } = target;
  const notes: string[] = [];
  if (error !== undefined) notes.push(`${name}: ${renderFailure(error, paint)}`);
  if (!running && error === undefined)
    notes.push(`${name}: no erserver is running for this target; start one: erserver run\n`);
  if (tables.copied !== undefined && tables.copied < (tables.total ?? 0))
    notes.push(`${name}: ${tables.copied} of ${plural(tables.total ?? 0, "table")} copied\n`);
  if (
    slot !== undefined &&
    slot.walStatus !== undefined &&
    slot.walStatus !== "reserved" &&
    slot.walStatus !== "extended"
  ) {
    notes.push(
      `${name}: ${paint.bad(`replication slot ${slot.name} is ${slot.walStatus}`)}: the source removes WAL that is still needed\n`,
    );
  }
  if (conflicts !== undefined && conflicts > 0)
    notes.push(
      `${name}: ${plural(conflicts, "conflict")} resolved, see table erserver.conflict on the target\n`,
    );
  if (replays !== undefined && replays > 0)
    notes.push(`${name}: ${plural(replays, "group")} applied row by row\n`);
  return notes;
}

/** One JSON object for each target; positions as text, times in ISO 8601. */
export function statusJson(targets: readonly TargetStatus[]): object[] {
  return targets.map(({ name, appliedLsn, ...rest }) => ({
    target: name,
    position: appliedLsn === undefined ? null : formatLsn(appliedLsn),
    ...rest,
  }));
}
