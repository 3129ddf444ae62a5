import { ErserverError } from "../errors/erserver-error.ts";
import { SQLSTATE } from "../errors/sqlstate.ts";
import { quoteIdent, quoteQualified } from "../quote/ident.ts";
import { type CatalogTable, tableKey, tableLabel } from "./catalog.ts";
import type { ControlSession } from "./connect.ts";
import { sqlStateOf } from "./failures.ts";
import type { ReplicatedTable, Selection } from "./selection.ts";

/**
 * The selection with every row filter in the server's own words, as it stands in the catalogue of publications: so
 * that two of them can be compared. Throws ERS-103 for one that the server does not understand, ERS-704 for one over
 * columns outside the row identity, which makes the user's UPDATE and DELETE fail on the source.
 */
export async function readRowFilters(session: ControlSession, selection: Selection): Promise<Selection> {
  const filters = new Map<string, string>();
  for (const table of selection.tables) {
    if (table.where === undefined) continue;
    const { expression, columns } = await readRowFilter(session, table, table.where);
    requireIdentityColumns(table, columns);
    filters.set(tableKey(table.source.schema, table.source.name), expression);
  }
  const worded = <T extends { readonly where: string | undefined }>(
    item: T,
    schema: string,
    name: string,
  ): T => (item.where === undefined ? item : { ...item, where: filters.get(tableKey(schema, name)) });
  return {
    ...selection,
    tables: selection.tables.map((table) => worded(table, table.source.schema, table.source.name)),
    published: selection.published.map((table) => worded(table, table.schema, table.name)),
  };
}

interface RowFilter {
  readonly expression: string;
  readonly columns: readonly string[];
}

/** A check constraint of a table that is rolled back: the server parses it by the same rules, and knows its columns. */
async function readRowFilter(
  session: ControlSession,
  { source: { schema, name } }: ReplicatedTable,
  where: string,
): Promise<RowFilter> {
  const label = tableLabel(schema, name);
  await session.query("begin");
  try {
    await session.query(`create temporary table erserver_filter (like ${quoteQualified(schema, name)})`);
    await session.query(
      `alter table pg_temp.erserver_filter add constraint erserver_filter check (${where})`,
    );
    const [row] = await session.query(
      `select pg_catalog.pg_get_expr(c.conbin, c.conrelid) as expression, coalesce(pg_catalog.json_agg(a.attname) filter (where a.attname is not null), '[]')::text as columns
       from pg_catalog.pg_constraint c left join pg_catalog.pg_attribute a on a.attrelid = c.conrelid and a.attnum = any (c.conkey)
       where c.conrelid = 'pg_temp.erserver_filter'::regclass and c.conname = 'erserver_filter' group by c.conbin, c.conrelid`,
    );
    return {
      expression: row?.["expression"] ?? "",
      columns: JSON.parse(row?.["columns"] ?? "[]") as string[],
    };
  } catch (error) {
    const state = sqlStateOf(error) ?? "";
    if (state === SQLSTATE.insufficientPrivilege) throw temporaryDenied(error as Error, label);
    if (!/^(?:42|22|0A)/.test(state)) throw error;
    throw new ErserverError(
      "ERS-103",
      `the row filter of ${label} is not valid: ${(error as Error).message}`,
      {
        subject: label,
        remedy: "Correct `where` in the configuration: an SQL condition over the table's columns.",
        cause: error,
      },
    );
  } finally {
    await session.query("rollback").catch(() => {});
  }
}

function temporaryDenied(error: Error, label: string): ErserverError {
  return new ErserverError("ERS-304", `the row filter of ${label} cannot be checked: ${error.message}`, {
    subject: label,
    remedy:
      "Run on the source for the role in the configuration: GRANT TEMPORARY ON DATABASE, and GRANT USAGE ON SCHEMA of the table.",
    cause: error,
  });
}

function requireIdentityColumns(
  { source, publishes, columnList }: ReplicatedTable,
  columns: readonly string[],
): void {
  if (publishes === "insert" || source.replicaIdentity === "full") return;
  const outside = columns.filter((name) => !source.identityColumns.includes(name));
  if (outside.length === 0) return;
  const label = tableLabel(source.schema, source.name);
  throw new ErserverError(
    "ERS-704",
    `the row filter of ${label} uses ${outside.map((name) => `"${name}"`).join(", ")}, which do not identify its rows: UPDATE and DELETE would fail on the source`,
    {
      subject: label,
      remedy: columnList
        ? withIndex(source, outside)
        : `Run on the source: ALTER TABLE ${label} REPLICA IDENTITY FULL; or filter by identity columns only.`,
    },
  );
}

/** FULL would ask for every column to be listed. */
function withIndex({ schema, name, identityColumns }: CatalogTable, outside: readonly string[]): string {
  const label = tableLabel(schema, name);
  const index = quoteIdent(`${name.slice(0, 50)}_erserver`);
  const notNull = outside.map((column) => `ALTER ${quoteIdent(column)} SET NOT NULL`).join(", ");
  const columns = [...identityColumns, ...outside].map(quoteIdent).join(", ");
  return (
    `Run on the source: ALTER TABLE ${label} ${notNull}; CREATE UNIQUE INDEX ${index} ON ${label} (${columns}); ` +
    `ALTER TABLE ${label} REPLICA IDENTITY USING INDEX ${index}; and name ${outside.map(quoteIdent).join(", ")} in \`columns\`. Or filter by identity columns only.`
  );
}
