import type { WireConnection } from "../wire/connection.ts";

/**
 * Whether a table, or a partition of it, got a new file since the reader's snapshot. TRUNCATE and the forms of ALTER
 * TABLE that rewrite it are not MVCC-safe: a snapshot from before sees an empty table. Exact once the reader has
 * read the table, as its lock keeps others from doing so. https://www.postgresql.org/docs/current/mvcc-caveats.html
 */
export async function isRewritten(reader: WireConnection, oid: number): Promise<boolean> {
  // pg_class is read as of the snapshot, pg_relation_filenode looks at what is committed now.
  const [result] = await reader.query(
    `with recursive tree(oid) as (
        select ${oid}::oid union all
        select i.inhrelid from tree join pg_catalog.pg_inherits i on i.inhparent = tree.oid join pg_catalog.pg_class p on p.oid = i.inhparent and p.relkind = 'p')
     select 1 from tree join pg_catalog.pg_class c on c.oid = tree.oid
     where c.relkind = 'r' and pg_catalog.pg_relation_filenode(c.oid) is distinct from c.relfilenode limit 1`,
  );
  return result?.rows.length !== 0;
}
