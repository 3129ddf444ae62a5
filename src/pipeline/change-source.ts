import type { Gear } from "../capture/wal/wal-capture.ts";
import type { Lsn } from "../change/lsn.ts";
import type { ChangeSink } from "../change/sink.ts";
import type { ExportedSnapshot } from "../postgres/slots.ts";
import type { Progress, TableState } from "../store/pipeline-store.ts";
import type { WireConnection } from "../wire/connection.ts";

/** A snapshot of the source and the connection that keeps it. */
export interface HeldSnapshot {
  readonly snapshot: ExportedSnapshot;
  readonly holder: WireConnection;
}

export interface CaptureStart {
  /** What the target has. */
  readonly progress: Progress;
  readonly states: readonly TableState[];
  /** No table's copy is of a later position. */
  readonly newestCopyLsn: Lsn;
  readonly sink: ChangeSink;
  /** Values are to come in binary form. */
  readonly binary: boolean;
  /** The first changes are those up to this exported snapshot. */
  readonly toSnapshot?: string | undefined;
  /** With trigger capture, of the source's tables, by `tableKey`: of the others nothing is read, and nothing lost. Undefined is all. */
  readonly only?: ReadonlySet<string> | undefined;
  /** The way of reading has changed. */
  readonly onGear: () => void;
}

/** Changes on their way from the source. */
export interface Capture extends AsyncDisposable {
  /** Rejects when no more changes come, for whatever reason. */
  readonly failed: Promise<never>;
  readonly gear: Gear;
  /** Whether the target stands still for as long as somebody likes. */
  set standing(standing: boolean);
  /** What the target has applied, and made durable; told to the source soon, or at once with `now`. */
  acknowledge(appliedLsn: Lsn, durableLsn: Lsn, now?: boolean): void;
  /** Before a clean end: the source hears of it, whatever it costs. */
  settle(appliedLsn: Lsn, durableLsn: Lsn): Promise<void>;
  /**
   * Goes on to where the source is by an exported snapshot, or with `HERE` stays where it is, and goes no further before it is called
   * with undefined; returns the position there once it is known. Only where positions are not the WAL's: those the sink holds.
   */
  holdAt(snapshotName: string | undefined): Lsn | undefined;
  /** What is put on record with the position, where the position alone does not say what the target has. */
  snapshotAt(lsn: Lsn): string | undefined;
}

/** What of a pipeline depends on how changes are had from its source. */
export interface ChangeSource {
  readonly kind: "wal" | "trigger";
  /**
   * A snapshot for tables that are to be copied. Without `progress` it is also where the changes begin, which is put on record. It is
   * valid until the holder is used again.
   */
  takeSnapshot(progress: Progress | undefined): Promise<HeldSnapshot>;
  /** Begins to read the changes behind what the target has. */
  start(start: CaptureStart): Promise<Capture>;
  /** Throws when somebody has changed what is read there: the pipeline has to be opened anew. */
  requireUnchanged(): Promise<void>;
}
