import { didYouMean } from "../config/did-you-mean.ts";
import { parseName } from "../config/table-pattern.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { type CatalogTable, readTables, tableLabel } from "../postgres/catalog.ts";
import type { ControlSession } from "../postgres/connect.ts";
import type { ServerFacts } from "../postgres/server-facts.ts";

/**
 * The table that somebody calls so: as in psql, folded to lower case unless quoted, or exactly as in the catalogue; without a schema where
 * one table has the name, or one in the schema of the role, or in `public`. Throws ERS-401 with what it may have been meant to be.
 */
export async function namedTable(
  session: ControlSession,
  { version, user }: Pick<ServerFacts, "version" | "user">,
  text: string,
): Promise<CatalogTable> {
  const tables = await readTables(session, version);
  const oid = await oidOf(session, text);
  // The server finds nothing in a schema that the role may not use; what it lacks is said of the table then.
  const qualified =
    tables.find((table) => table.oid === oid) ??
    tables.find(({ schema, name }) => [tableLabel(schema, name), `${schema}.${name}`].includes(text));
  if (qualified !== undefined) return qualified;
  const folded = foldedName(text);
  const called = tables.filter(({ name }) => name === text);
  const alike = called.length > 0 ? called : tables.filter(({ name }) => name === folded);
  const [one] = alike;
  if (one !== undefined && alike.length === 1) return one;
  const usual = [user, "public"].flatMap((schema) => alike.find((table) => table.schema === schema) ?? []);
  if (usual[0] !== undefined) return usual[0];
  const isOther = oid !== undefined || (await isRelation(session, folded ?? text));
  throw noSuchTable(text, alike, tables, isOther);
}

function noSuchTable(
  text: string,
  alike: readonly CatalogTable[],
  tables: readonly CatalogTable[],
  isOther: boolean,
): ErserverError {
  const labels = (alike.length > 0 ? alike : tables).map(({ schema, name }) => tableLabel(schema, name));
  const guess = didYouMean(text, [...labels, ...tables.map(({ name }) => name)]);
  const what = JSON.stringify(text);
  return new ErserverError(
    "ERS-401",
    alike.length > 0
      ? `several tables are called ${what}`
      : isOther
        ? `${what} is not a table that can be replicated: a view, a sequence, or one of the system's`
        : `there is no table ${what}.${guess}`,
    {
      subject: text,
      remedy:
        labels.length === 0
          ? "The database has no table that the role can see: is it the right one?"
          : `Name one of: ${labels.slice(0, 10).join(", ")}${labels.length > 10 ? ", …" : ""}`,
    },
  );
}

/** A view, for instance. */
async function isRelation(session: ControlSession, name: string): Promise<boolean> {
  const rows = await session.query("select 1 as one from pg_catalog.pg_class where relname = $1 limit 1", [
    name,
  ]);
  return rows.length > 0;
}

/** Undefined for what the server does not find, and for what is no name. */
async function oidOf(session: ControlSession, text: string): Promise<number | undefined> {
  try {
    const [row] = await session.query("select pg_catalog.to_regclass($1)::oid::text as oid", [text]);
    return row?.["oid"] == null ? undefined : Number(row["oid"]);
  } catch (error) {
    if (error instanceof ErserverError && error.entry.retry === "reconnect") throw error;
    return undefined;
  }
}

type NamedColumns = Pick<CatalogTable, "schema" | "name" | "columns">;

/** A column of the table: exactly so in the catalogue, or folded as in psql. Throws ERS-402. */
export function namedColumn({ schema, name, columns }: NamedColumns, text: string): string {
  const names = columns.map((column) => column.name);
  if (names.includes(text)) return text;
  const folded = foldedName(text);
  if (folded !== undefined && names.includes(folded)) return folded;
  throw new ErserverError(
    "ERS-402",
    `${tableLabel(schema, name)} has no column ${JSON.stringify(text)}.${didYouMean(text, names)}`,
    { subject: text, remedy: `Its columns are: ${names.join(", ")}.` },
  );
}

/** As `namedColumn`, of what may be there no more. */
export function registeredColumn(
  table: NamedColumns,
  { columns }: { readonly columns: readonly string[] | null },
  text: string,
): string {
  return columns?.includes(text) === true ? text : namedColumn(table, text);
}

function foldedName(text: string): string | undefined {
  try {
    return parseName(text);
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}
