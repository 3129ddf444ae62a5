import { type CatalogColumn, type CatalogTable, equalityOperator } from "../postgres/catalog.ts";
import { hasUniqueBeside, type TableConstraints } from "../postgres/constraints.ts";
import { quoteIdent, quoteQualified } from "../quote/ident.ts";

/** Holds the source's rows until the transaction ends. */
export const STAGING = "pg_temp.erserver_copy";

export function createStaging(target: CatalogTable, columns: readonly string[]): string {
  return `create temporary table erserver_copy on commit drop as select ${columns.map(quoteIdent).join(", ")} from ${quoteQualified(target.schema, target.name)} with no data`;
}

export interface Merge {
  readonly target: CatalogTable;
  /** What the staging table has. */
  readonly columns: readonly string[];
  /** Without one, or a unique index of the target for it, no row is known by anything, and all are replaced. */
  readonly key: readonly string[];
  /** Of the target. */
  readonly unique: TableConstraints["unique"];
}

/** Makes the rows of the target those of the staging table. A row that is the same byte for byte is not touched. */
export function mergeStaging({ target, columns, key, unique }: Merge): string[] {
  const table = quoteQualified(target.schema, target.name);
  const rows = `${target.partitioned ? "" : "only "}${table} as t`;
  const list = columns.map(quoteIdent).join(", ");
  const insert = `insert into ${table} (${list}) overriding system value select ${list} from ${STAGING} as c`;
  // A target that may hold a key twice would keep both.
  const isKey = unique.some((names) => names?.every((name) => key.includes(name)) === true);
  if (key.length === 0 || !isKey) return [`delete from ${rows}`, insert];

  const written = target.columns.filter(({ name }) => columns.includes(name));
  const sameKey = written
    .filter(({ name }) => key.includes(name))
    .map((column) => `${valueOf("t", column)} ${equalityOperator(column)} ${valueOf("c", column)}`)
    .join(" and ");
  const image = (of: string): string =>
    `row(${columns.map((name) => `${of}.${quoteIdent(name)}`).join(", ")})`;
  const same = `pg_catalog.record_image_eq(${image("t")}, ${image("c")})`;
  const assignments = written
    .filter(({ identity }) => identity !== "a")
    .map(({ name }) => `${quoteIdent(name)} = c.${quoteIdent(name)}`);
  // An identity column cannot be set.
  const replaces =
    hasUniqueBeside(unique, key) ||
    written.some(({ name, identity }) => identity === "a" && !key.includes(name)) ||
    assignments.length === 0;
  return [
    `analyze ${STAGING}`,
    `delete from ${rows} where not exists (select from ${STAGING} as c where ${sameKey}${replaces ? ` and ${same}` : ""})`,
    ...(replaces
      ? []
      : [
          `update ${rows} set ${assignments.join(", ")} from ${STAGING} as c where ${sameKey} and not ${same}`,
        ]),
    `${insert} where not exists (select from ${rows} where ${sameKey})`,
  ];
}

/** A column in the type that it is of in the end: PostgreSQL finds no polymorphic operator for a domain. */
function valueOf(rows: string, { name, baseType }: CatalogColumn): string {
  return `${rows}.${quoteIdent(name)}${baseType === null ? "" : `::${baseType}`}`;
}
