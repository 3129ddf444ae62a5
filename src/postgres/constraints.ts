import type { ControlSession } from "./connect.ts";

/** A foreign key whose rows the server looks for. */
export interface ForeignKey {
  /** pg_class.oid of the table that refers, and of the one that it refers to. */
  readonly from: number;
  readonly to: number;
  /** Columns of `from`, and the columns of `to` that they are equal to, in the same order. */
  readonly columns: readonly string[];
  readonly referenced: readonly string[];
  /** Every pair is of one type, with one modifier. */
  readonly sameTypes: boolean;
  /** ON UPDATE or ON DELETE changes rows of `from`. */
  readonly acts: boolean;
}

/** By what the rows of one table have to do with other rows. */
export interface TableConstraints {
  /** Columns of its unique indexes; undefined for one over expressions or some of the rows, of an exclusion constraint, or that compares otherwise than `=` does. */
  readonly unique: readonly (readonly string[] | undefined)[];
  /** Triggers or rules of users fire. */
  readonly fires: boolean;
  /** Columns whose collation takes different texts for equal. */
  readonly looselyCompared: readonly string[];
}

/** Whether a table has a unique index on anything but the key: then two of its rows may exchange what it holds. */
export function hasUniqueBeside(unique: TableConstraints["unique"], key: readonly string[]): boolean {
  const names = JSON.stringify(key.toSorted());
  return unique.some((columns) => JSON.stringify(columns?.toSorted()) !== names);
}

export interface Constraints {
  /** By OID; of a partitioned table with what its partitions have. */
  readonly tables: ReadonlyMap<number, TableConstraints>;
  /** Empty where they are not looked at. */
  readonly foreignKeys: readonly ForeignKey[];
}

interface ConstraintsRow {
  oid: string;
  unique: string;
  fires: string;
  loose: string;
}

/** indnkeyatts came with 11, nondeterministic collations with 12, NULLS NOT DISTINCT with 15. */
const constraintsQuery = (version: number, fires: string): string => `
  with recursive tree(root, oid) as (
    select c.oid, c.oid from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      where c.relkind in ('r', 'p') and n.nspname not in ('pg_catalog', 'information_schema', 'erserver')
    union all
    select tree.root, i.inhrelid from tree join pg_catalog.pg_class p on p.oid = tree.oid and p.relkind = 'p' join pg_catalog.pg_inherits i on i.inhparent = p.oid)
  select t.oid,
    (select coalesce(pg_catalog.json_agg(case
        when i.indisunique and not i.indisexclusion and i.indpred is null and i.indexprs is null ${version >= 150_000 ? "and not i.indnullsnotdistinct" : ""}
            and not exists (select 1 from pg_catalog.pg_opclass o where o.oid = any (i.indclass::oid[]) and not o.opcdefault)
            ${version >= 120_000 ? "and not exists (select 1 from pg_catalog.pg_collation l where l.oid = any (i.indcollation::oid[]) and not l.collisdeterministic)" : ""} then
          (select pg_catalog.json_agg(a.attname order by k.position) from pg_catalog.unnest(i.indkey::int2[]) with ordinality as k(attnum, position)
            join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum where k.position <= ${version >= 110_000 ? "i.indnkeyatts" : "i.indnatts"})
        end), '[]')
      from tree join pg_catalog.pg_index i on i.indrelid = tree.oid where tree.root = t.oid and (i.indisunique or i.indisexclusion))::text as unique,
    (exists (select 1 from tree join pg_catalog.pg_trigger g on g.tgrelid = tree.oid where tree.root = t.oid and ${fires})
      or exists (select 1 from tree join pg_catalog.pg_rewrite r on r.ev_class = tree.oid where tree.root = t.oid and r.ev_enabled <> 'D'))::text as fires,
    (select coalesce(pg_catalog.json_agg(a.attname), '[]') from pg_catalog.pg_attribute a
      join pg_catalog.pg_collation l on l.oid = a.attcollation where a.attrelid = t.oid and ${version >= 120_000 ? "not l.collisdeterministic" : "false"})::text as loose
  from (select distinct root as oid from tree) t`;

/** `unnest` is not qualified: only so it takes several arrays. */
const FOREIGN_KEYS = `
  select f.conrelid as from_oid, f.confrelid as to_oid, (f.confupdtype not in ('a', 'r') or f.confdeltype not in ('a', 'r'))::text as acts,
    pg_catalog.json_agg(a.attname order by k.position)::text as columns, pg_catalog.json_agg(b.attname order by k.position)::text as referenced,
    pg_catalog.bool_and(a.atttypid = b.atttypid and a.atttypmod = b.atttypmod)::text as same_types
  from pg_catalog.pg_constraint f
    cross join lateral unnest(f.conkey, f.confkey) with ordinality as k(attnum, referenced, position)
    join pg_catalog.pg_attribute a on a.attrelid = f.conrelid and a.attnum = k.attnum
    join pg_catalog.pg_attribute b on b.attrelid = f.confrelid and b.attnum = k.referenced
  where f.contype = 'f'
  group by f.oid, f.conrelid, f.confrelid, f.confupdtype, f.confdeltype`;

/**
 * Reads the constraints of every user table. `replicaRole`: for a session with session_replication_role = replica, in which foreign
 * keys are not looked at and triggers do not fire unless they are ENABLE REPLICA or ALWAYS.
 * https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-SESSION-REPLICATION-ROLE
 */
export async function readConstraints(
  session: ControlSession,
  version: number,
  replicaRole: boolean,
): Promise<Constraints> {
  const fires = replicaRole
    ? "g.tgenabled in ('R', 'A')"
    : "((not g.tgisinternal and g.tgenabled in ('O', 'A')) or (g.tgisinternal and g.tgconstraint = 0))";
  const tables = await session.query<ConstraintsRow>(constraintsQuery(version, fires));
  const foreignKeys = replicaRole
    ? []
    : await session.query<
        Record<"from_oid" | "to_oid" | "acts" | "columns" | "referenced" | "same_types", string>
      >(FOREIGN_KEYS);
  return {
    tables: new Map(
      tables.map((row) => [
        Number(row.oid),
        {
          unique: (JSON.parse(row.unique) as (string[] | null)[]).map((columns) => columns ?? undefined),
          fires: row.fires === "true",
          looselyCompared: JSON.parse(row.loose) as string[],
        },
      ]),
    ),
    foreignKeys: foreignKeys.map((row) => ({
      from: Number(row.from_oid),
      to: Number(row.to_oid),
      columns: JSON.parse(row.columns) as string[],
      referenced: JSON.parse(row.referenced) as string[],
      sameTypes: row.same_types === "true",
      acts: row.acts === "true",
    })),
  };
}
