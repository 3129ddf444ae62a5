import type { WireConnection } from "../wire/connection.ts";

/**
 * One of these tables that got a new file since the reader's snapshot, or of which a partition did; undefined when none has. TRUNCATE and the
 * forms of ALTER TABLE that rewrite it are not MVCC-safe: a snapshot from before sees an empty table. Exact once the reader has
 * read the tables, as its locks keep others from doing so. https://www.postgresql.org/docs/current/mvcc-caveats.html
 */
export async function findRewritten(
  reader: WireConnection,
  oids: readonly number[],
): Promise<number | undefined> {
  if (oids.length === 0) return undefined;
  // pg_class is read as of the snapshot, pg_relation_filenode looks at what is committed now.
  const [result] = await reader.query(
    `with recursive tree(root, oid) as (
        select t.oid, t.oid from pg_catalog.unnest('{${oids.join(", ")}}'::oid[]) as t(oid) union all
        select tree.root, i.inhrelid from tree join pg_catalog.pg_inherits i on i.inhparent = tree.oid join pg_catalog.pg_class p on p.oid = i.inhparent and p.relkind = 'p')
     select tree.root from tree join pg_catalog.pg_class c on c.oid = tree.oid
     where c.relkind = 'r' and pg_catalog.pg_relation_filenode(c.oid) is distinct from c.relfilenode limit 1`,
  );
  const [root] = result?.rows[0] ?? [];
  return root == null ? undefined : Number(root);
}

export async function isRewritten(reader: WireConnection, oid: number): Promise<boolean> {
  return (await findRewritten(reader, [oid])) !== undefined;
}
