import { parseSnapshot, type XidSnapshot } from "../capture/trigger/snapshot.ts";
import { type Lsn, parseLsn } from "../change/lsn.ts";
import type { ControlSession } from "../postgres/connect.ts";

/** A moment of the source, as either way of capture knows it. */
export interface Mark {
  readonly lsn: Lsn;
  readonly snapshot: XidSnapshot;
}

/**
 * Writes an empty transactional message into the source's WAL and returns its position: everything that had
 * committed before is before it, and because its own commit is flushed, an otherwise idle source sends up to it.
 * Needs no privilege. https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-REPLICATION
 */
export async function emitMarker(source: ControlSession): Promise<Mark> {
  const [row] = await source.query("select pg_catalog.pg_logical_emit_message(true, 'erserver', '') as lsn");
  const [after] = await source.query("select pg_catalog.txid_current_snapshot()::text as snapshot");
  return { lsn: parseLsn(row?.["lsn"] ?? ""), snapshot: parseSnapshot(after?.["snapshot"] ?? "") };
}
