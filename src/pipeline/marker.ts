import { type Lsn, parseLsn } from "../change/lsn.ts";
import type { ControlSession } from "../postgres/connect.ts";

/**
 * Writes an empty transactional message into the source's WAL and returns its position: everything that had
 * committed before is before it, and because its own commit is flushed, an otherwise idle source sends up to it.
 * Needs no privilege. https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-REPLICATION
 */
export async function emitMarker(source: ControlSession): Promise<Lsn> {
  const [row] = await source.query("select pg_catalog.pg_logical_emit_message(true, 'erserver', '') as lsn");
  return parseLsn(row?.["lsn"] ?? "");
}
