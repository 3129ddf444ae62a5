/**
 * Which transactions a snapshot sees, by 64-bit transaction numbers: those below `xmax` that are not in progress.
 * https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-TXID-SNAPSHOT
 */
export interface XidSnapshot {
  /** As type txid_snapshot prints it: `xmin:xmax:xip,xip`. */
  readonly text: string;
  readonly xmax: bigint;
  /** In progress, in ascending order. */
  readonly inProgress: readonly bigint[];
}

const SNAPSHOT = /^\d+:(\d+):((?:\d+(?:,\d+)*)?)$/;

/** Throws RangeError when the text is not that of a txid_snapshot. */
export function parseSnapshot(text: string): XidSnapshot {
  const match = SNAPSHOT.exec(text);
  if (match === null) throw new RangeError(`not a snapshot: ${JSON.stringify(text)}`);
  const [, xmax = "", inProgress = ""] = match;
  return {
    text,
    xmax: BigInt(xmax),
    inProgress: inProgress === "" ? [] : inProgress.split(",").map(BigInt),
  };
}

/** What a target has: all that a snapshot sees, and of some tables (by their numbers in erserver.captured_table) all that a later one sees. */
export interface TargetSnapshot {
  readonly base: XidSnapshot;
  readonly ahead: ReadonlyMap<number, XidSnapshot>;
}

/** As `formatTargetSnapshot` writes it: the base, then `number=snapshot` for each table that is ahead. Throws RangeError. */
export function parseTargetSnapshot(text: string): TargetSnapshot {
  const [base = "", ...ahead] = text.split(" ");
  return {
    base: parseSnapshot(base),
    ahead: new Map(
      ahead.map((entry) => {
        const [id = "", snapshot = ""] = entry.split("=");
        return [Number(id), parseSnapshot(snapshot)];
      }),
    ),
  };
}

export function formatTargetSnapshot({ base, ahead }: TargetSnapshot): string {
  return [base.text, ...[...ahead].map(([id, { text }]) => `${id}=${text}`)].join(" ");
}

/** An SQL condition: the snapshot does not see the transaction. In this form an index finds them. */
export function notSeenBy({ xmax, inProgress }: XidSnapshot, column: string): string {
  const late = `${column} >= ${xmax}`;
  return inProgress.length === 0 ? late : `(${late} or ${column} in (${inProgress.join(", ")}))`;
}

/** Whether one snapshot sees all that the other sees. */
export function seesAllOf(one: XidSnapshot, other: XidSnapshot): boolean {
  return (
    one.xmax >= other.xmax &&
    one.inProgress.every((xid) => xid >= other.xmax || other.inProgress.includes(xid))
  );
}
