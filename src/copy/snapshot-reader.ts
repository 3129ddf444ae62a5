import { type Conninfo, describeConninfo } from "../config/conninfo.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { ServerError } from "../errors/server-error.ts";
import { SQLSTATE } from "../errors/sqlstate.ts";
import { type Catalogue, type CatalogTable, isUnchanged } from "../postgres/catalog.ts";
import { connectWatched } from "../postgres/watchdog.ts";
import { quoteQualified } from "../quote/ident.ts";
import { quoteLiteral } from "../quote/literal.ts";
import type { WireConnection } from "../wire/connection.ts";

/** Opens a source session that sees exactly the exported snapshot. */
export async function openSnapshotReader(
  conninfo: Conninfo,
  snapshotName: string,
  options: { readonly pipeline: string; readonly timeoutMs: number },
): Promise<WireConnection> {
  const connection = await connectWatched(conninfo, {
    applicationName: `erserver ${options.pipeline} copy`,
    timeoutMs: options.timeoutMs,
  });
  try {
    await connection.query(
      `begin isolation level repeatable read read only; set transaction snapshot ${quoteLiteral(snapshotName)}`,
    );
    return connection;
  } catch (error) {
    connection.destroy();
    // 22023 up to 15, 42704 from 16 on: no such snapshot.
    if (error instanceof ServerError && /^(?:22023|42704)$/.test(error.code))
      throw snapshotGone(conninfo, error);
    throw error;
  }
}

/**
 * Whether a table still is what the plan was made from; if so, the open transaction's lock keeps it so until it ends. A
 * snapshot does not: a statement reads the old rows by the columns of now, and making a slot may have taken hours. So it is the
 * newest state that is looked at, by another session.
 */
export async function lockUnchanged(
  connection: WireConnection,
  catalogue: Catalogue,
  table: CatalogTable,
): Promise<boolean> {
  const from = `${table.partitioned ? "" : "only "}${quoteQualified(table.schema, table.name)}`;
  try {
    // LOCK TABLE would ask for privileges on the whole table.
    await connection.query(
      `savepoint erserver_lock; select from ${from} where false; release savepoint erserver_lock`,
    );
  } catch (error) {
    if (!(error instanceof ServerError) || error.code !== SQLSTATE.undefinedTable) throw error;
    await connection.query("rollback to savepoint erserver_lock");
    return false;
  }
  return isUnchanged(catalogue, table);
}

function snapshotGone(conninfo: Conninfo, cause: ServerError): ErserverError {
  return new ErserverError(
    "ERS-204",
    `the session that exports the snapshot of the first copy is gone: ${cause.message}`,
    {
      subject: describeConninfo(conninfo),
      remedy: "Nothing to do: the tables that are not copied yet are copied from another snapshot.",
      cause,
    },
  );
}
