import type { Conninfo } from "../../config/conninfo.ts";
import type { SessionOptions } from "../../postgres/connect.ts";
import { connectWatched } from "../../postgres/watchdog.ts";
import type { WireConnection } from "../../wire/connection.ts";

/** A snapshot of the source that others may read by. */
export interface ExportedXids {
  /** Keeps it for as long as it is not used. */
  readonly holder: WireConnection;
  readonly snapshotName: string;
  /** What it sees: of type txid_snapshot. */
  readonly xids: string;
}

export async function exportSnapshot(conninfo: Conninfo, options: SessionOptions): Promise<ExportedXids> {
  const holder = await connectWatched(conninfo, options);
  try {
    const results = await holder.query(
      "begin isolation level repeatable read read only; select pg_catalog.pg_export_snapshot(), pg_catalog.txid_current_snapshot()::text",
    );
    const [snapshotName = "", xids = ""] = (results[1]?.rows[0] ?? []) as string[];
    return { holder, snapshotName, xids };
  } catch (error) {
    holder.destroy();
    throw error;
  }
}
