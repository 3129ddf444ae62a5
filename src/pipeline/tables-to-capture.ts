import type { Relation, TableToCapture } from "../capture/trigger/captured-tables.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { PARTITION_TREES, tableLabel } from "../postgres/catalog.ts";
import { quoteIdent } from "../quote/ident.ts";
import type { SourceInput } from "./source-input.ts";

/** What of a source has to have triggers. */
type Capturable = Pick<SourceInput, "source" | "sourceFacts" | "selection">;

/** The selected tables with the relations that statements may name. Throws for those whose changes triggers cannot record. */
export async function tablesToCapture(input: Capturable): Promise<TableToCapture[]> {
  await refuseInheritance(input);
  const { source, sourceFacts, selection } = input;
  const rows = await source.query<Record<"root" | "oid" | "schema" | "name" | "kind" | "readable", string>>(
    `with recursive ${PARTITION_TREES}
     select tree.root::text, c.oid::text, n.nspname as schema, c.relname as name, c.relkind::text as kind,
       (pg_catalog.has_table_privilege(c.oid, 'SELECT') and pg_catalog.has_schema_privilege(n.oid, 'USAGE'))::text as readable
     from tree join pg_catalog.pg_class c on c.oid = tree.oid join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.relkind in ('r', 'p')`,
    [selection.tables.map(({ source: { oid } }) => oid)],
  );
  const hidden = rows.filter(
    ({ root, oid, kind, readable }) => root !== oid && kind === "r" && readable === "false",
  );
  if (hidden.length > 0) throw leavesHidden(hidden, sourceFacts.user);
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
  const labels = leaves.map(({ schema, name }) => tableLabel(schema, name)).join(", ");
  const schemas = [...new Set(leaves.map(({ schema }) => quoteIdent(schema)))].join(", ");
  const role = quoteIdent(user);
  return new ErserverError("ERS-304", `role ${role} may not read partitions of the source: ${labels}`, {
    subject: labels,
    remedy: `Run on the source as the tables' owner: GRANT USAGE ON SCHEMA ${schemas} TO ${role}; GRANT SELECT ON ${labels} TO ${role};`,
  });
}

/** A statement on a parent changes rows of its children, whose triggers it does not fire. */
async function refuseInheritance({ source, selection }: Capturable): Promise<void> {
  const rows = await source.query<Record<"schema" | "name", string>>(
    `select distinct n.nspname as schema, c.relname as name from pg_catalog.pg_inherits i
       join pg_catalog.pg_class p on p.oid = i.inhparent and p.relkind = 'r' join pg_catalog.pg_class c on c.oid in (i.inhparent, i.inhrelid)
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = any ($1::oid[])`,
    [selection.tables.map(({ source: { oid } }) => oid)],
  );
  if (rows.length === 0) return;
  const labels = rows.map(({ schema, name }) => tableLabel(schema, name)).join(", ");
  throw new ErserverError(
    "ERS-107",
    `${labels}: a statement on a table changes rows of those that inherit from it, whose triggers it does not fire`,
    { subject: labels, remedy: "Exclude these tables, or use `capture: wal`." },
  );
}
