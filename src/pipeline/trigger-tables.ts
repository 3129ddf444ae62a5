import type { CapturedTable, Relation, TableToCapture } from "../capture/trigger/captured-tables.ts";
import type { FollowedTable } from "../capture/trigger/changes-query.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { type CatalogTable, PARTITION_TREES, tableLabel, tableLabels } from "../postgres/catalog.ts";
import type { ControlSession } from "../postgres/connect.ts";
import { hasUniqueBeside, type TableConstraints } from "../postgres/constraints.ts";
import type { ReplicatedTable } from "../postgres/selection.ts";
import { quoteIdent } from "../quote/ident.ts";
import { relationOf } from "./relation-of.ts";
import type { SourceInput } from "./source-input.ts";

/** A source and what of it is replicated. */
type SelectedSource = Pick<SourceInput, "source" | "sourceFacts" | "selection">;

/**
 * Types whose values are equal exactly when their bytes are, by pg_type.oid: bool, bytea, char, name, int8, int2, int4, text, oid, cidr, macaddr, bpchar,
 * varchar, date, time, timestamp, timestamptz, uuid, inet.
 */
const EXACT_TYPES = new Set([
  16, 17, 18, 19, 20, 21, 23, 25, 26, 650, 829, 1042, 1043, 1082, 1083, 1114, 1184, 2950, 869,
]);

/** The selected tables with the relations that statements may name. Throws for those whose changes triggers cannot record. */
export async function tablesToCapture(input: SelectedSource): Promise<TableToCapture[]> {
  await refuseInheritance(input);
  const { source, sourceFacts, selection } = input;
  const rows = await source.query<
    Record<"root" | "oid" | "schema" | "name" | "kind" | "readable" | "recordable", string>
  >(
    `with recursive ${PARTITION_TREES}
     select tree.root::text, c.oid::text, n.nspname as schema, c.relname as name, c.relkind::text as kind,
       (pg_catalog.has_table_privilege(c.oid, 'SELECT') and pg_catalog.has_schema_privilege(n.oid, 'USAGE'))::text as readable,
       (pg_catalog.has_table_privilege(c.oid, 'TRIGGER') or exists (select from pg_catalog.pg_trigger g join pg_catalog.pg_proc p on p.oid = g.tgfoid
         join pg_catalog.pg_namespace e on e.oid = p.pronamespace where g.tgrelid = c.oid and e.nspname = 'erserver'))::text as recordable
     from tree join pg_catalog.pg_class c on c.oid = tree.oid join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.relkind in ('r', 'p')`,
    [selection.tables.map(({ source: { oid } }) => oid)],
  );
  const hidden = rows.filter(
    ({ root, oid, kind, readable }) => root !== oid && kind === "r" && readable === "false",
  );
  if (hidden.length > 0) throw leavesHidden(hidden, sourceFacts.user);
  // Where there are triggers of ours somebody else has made them.
  const unrecordable = rows.filter(({ recordable }) => recordable === "false");
  if (unrecordable.length > 0) throw mayNotTrigger(unrecordable, sourceFacts.user);
  return selection.tables.map(({ source: table }) => {
    const parts = rows
      .filter(({ root, oid }) => Number(root) === table.oid && oid !== root)
      .map(({ oid, schema, name, kind }): Relation => ({
        oid: Number(oid),
        schema,
        name,
        role: kind === "p" ? "branch" : "leaf",
      }));
    const { oid, schema, name } = table;
    return {
      table,
      relations: [{ oid, schema, name, role: table.partitioned ? "root" : "table" }, ...parts],
      key: table.identityColumns,
    };
  });
}

/** TRUNCATE of a partition has its keys read by the trigger, with our privileges: without them the statement would fail. */
function leavesHidden(leaves: readonly { schema: string; name: string }[], user: string): ErserverError {
  const labels = tableLabels(leaves);
  const schemas = [...new Set(leaves.map(({ schema }) => quoteIdent(schema)))].join(", ");
  const role = quoteIdent(user);
  return new ErserverError("ERS-304", `role ${role} may not read partitions of the source: ${labels}`, {
    subject: labels,
    remedy: `Run on the source as the tables' owner: GRANT USAGE ON SCHEMA ${schemas} TO ${role}; GRANT SELECT ON ${labels} TO ${role};`,
  });
}

function mayNotTrigger(tables: readonly { schema: string; name: string }[], user: string): ErserverError {
  const labels = tables.map(({ schema, name }) => tableLabel(schema, name)).join(", ");
  const role = quoteIdent(user);
  return new ErserverError(
    "ERS-304",
    `role ${role} may not make triggers on tables of the source: ${labels}`,
    {
      subject: labels,
      remedy: `Run on the source as the tables' owner: GRANT TRIGGER ON ${labels} TO ${role};`,
    },
  );
}

/** A statement on a parent changes rows of its children, whose triggers it does not fire. */
async function refuseInheritance({ source, selection }: SelectedSource): Promise<void> {
  const rows = await source.query<Record<"schema" | "name", string>>(
    `select distinct n.nspname as schema, c.relname as name from pg_catalog.pg_inherits i
       join pg_catalog.pg_class p on p.oid = i.inhparent and p.relkind = 'r' join pg_catalog.pg_class c on c.oid in (i.inhparent, i.inhrelid)
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = any ($1::oid[])`,
    [selection.tables.map(({ source: { oid } }) => oid)],
  );
  if (rows.length === 0) return;
  const labels = tableLabels(rows);
  throw new ErserverError(
    "ERS-107",
    `${labels}: a statement on a table changes rows of those that inherit from it, whose triggers it does not fire`,
    { subject: labels, remedy: "Exclude these tables, or use `capture: wal`." },
  );
}

/**
 * How a captured table is read. Rewritten are rows that would not be found, or whose exchange of unique values has no order that would
 * work: where keys that are equal may look different, or `constraints` has a unique index beside the key.
 */
export function followedTable(
  table: ReplicatedTable,
  captured: readonly CapturedTable[],
  constraints: TableConstraints | undefined,
): FollowedTable {
  const { id, key } = captured.find(({ oid }) => oid === table.source.oid) as CapturedTable;
  const { unique = [], looselyCompared = [] } = constraints ?? {};
  const keys = table.source.columns.filter(({ name }) => key.some((column) => column.name === name));
  // Equal keys may look different, and an UPDATE leaves the key as it is.
  const exact = keys.every(
    ({ baseTypeOid, name }) => EXACT_TYPES.has(baseTypeOid) && !looselyCompared.includes(name),
  );
  const keyNames = keys.map(({ name }) => name);
  const relation = relationOf(table);
  const rewrites = hasUniqueBeside(unique, keyNames) || !exact;
  return { id, key, relation, partitioned: table.source.partitioned, rewrites };
}

/** What tables, their partitions and their triggers were like when it was read. */
export class TableShapes {
  readonly #source: ControlSession;
  readonly #tables: readonly CatalogTable[];
  readonly #shapes: ReadonlyMap<number, string>;

  private constructor(
    source: ControlSession,
    tables: readonly CatalogTable[],
    shapes: ReadonlyMap<number, string>,
  ) {
    this.#source = source;
    this.#tables = tables;
    this.#shapes = shapes;
  }

  static async read(source: ControlSession, tables: readonly CatalogTable[]): Promise<TableShapes> {
    const oids = tables.map(({ oid }) => oid);
    return new TableShapes(source, tables, await readShapes(source, oids));
  }

  /** Throws ERS-509 when one of these, or of all, is another now. */
  async requireUnchanged(oids: readonly number[] = [...this.#shapes.keys()]): Promise<void> {
    const now = await readShapes(this.#source, oids);
    const changed = oids.find((oid) => now.get(oid) !== this.#shapes.get(oid));
    if (changed === undefined) return;
    const table = this.#tables.find(({ oid }) => oid === changed);
    const label = table === undefined ? String(changed) : tableLabel(table.schema, table.name);
    throw new ErserverError("ERS-509", `table ${label}, its partitions or its triggers were changed`, {
      subject: label,
      remedy: "Nothing to do: the pipeline is opened anew by itself, and says what is missing.",
    });
  }
}

/** What a table is called, its columns, its partitions, and how many triggers of ours are there and fire: of each a text that changes with it. */
async function readShapes(source: ControlSession, oids: readonly number[]): Promise<Map<number, string>> {
  const rows = await source.query<{ root: string; shape: string }>(
    `with recursive ${PARTITION_TREES}
     select tree.root::text, pg_catalog.md5(pg_catalog.string_agg(pg_catalog.concat_ws(',', c.oid, n.nspname, c.relname, a.columns, g.triggers), ';' order by c.oid)) as shape
     from tree join pg_catalog.pg_class c on c.oid = tree.oid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       cross join lateral (select pg_catalog.string_agg(pg_catalog.concat_ws(' ', attnum, attname, atttypid, atttypmod), ',' order by attnum) as columns
         from pg_catalog.pg_attribute where attrelid = c.oid and attnum > 0 and not attisdropped) a
       cross join lateral (select count(*) as triggers from pg_catalog.pg_trigger where tgrelid = c.oid and tgname like 'erserver\\_%' and tgenabled in ('O', 'A')) g
     group by tree.root`,
    [oids],
  );
  return new Map(rows.map(({ root, shape }) => [Number(root), shape]));
}
