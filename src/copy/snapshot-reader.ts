import { type Conninfo, describeConninfo } from "../config/conninfo.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { ServerError } from "../errors/server-error.ts";
import type { CatalogTable } from "../postgres/catalog.ts";
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
 * Whether a table, or a partition of it, got a new file since the reader's snapshot, or its name went to another. TRUNCATE
 * and the forms of ALTER TABLE that rewrite it are not MVCC-safe: a snapshot from before sees an empty table. Exact once
 * the reader has read the table, as its lock keeps others from doing so. https://www.postgresql.org/docs/current/mvcc-caveats.html
 */
export async function isRewritten(
  reader: WireConnection,
  { oid, schema, name }: Pick<CatalogTable, "oid" | "schema" | "name">,
): Promise<boolean> {
  // pg_class is read as of the snapshot, to_regclass and pg_relation_filenode look at what is committed now.
  const [result] = await reader.query(
    `with recursive tree(oid) as (
        select ${oid}::oid union all
        select i.inhrelid from tree join pg_catalog.pg_inherits i on i.inhparent = tree.oid join pg_catalog.pg_class p on p.oid = i.inhparent and p.relkind = 'p')
     select 1 where pg_catalog.to_regclass(${quoteLiteral(quoteQualified(schema, name))}) is distinct from ${oid}::regclass
     union all select 1 from tree join pg_catalog.pg_class c on c.oid = tree.oid
     where c.relkind = 'r' and pg_catalog.pg_relation_filenode(c.oid) is distinct from c.relfilenode limit 1`,
  );
  return result?.rows.length !== 0;
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
