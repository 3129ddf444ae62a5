import type { RelationColumn } from "../change/relation.ts";
import { type CatalogColumn, FIRST_UNFIXED_OID } from "../postgres/catalog.ts";
import type { Constraints, ForeignKey } from "../postgres/constraints.ts";
import type { RowKey, RowKeys } from "./footprint.ts";
import type { TablePlan } from "./table-plan.ts";

/** pg_type.oid of types with one form for each value: bool, bytea, "char", name, int8, int2, int4, text, oid, varchar, date, timestamp, timestamptz, uuid. */
const ONE_FORM: ReadonlySet<number> = new Set([
  16, 17, 18, 19, 20, 21, 23, 25, 26, 1043, 1082, 1114, 1184, 2950,
]);

/** bpchar and numeric: with a length, or a scale, all values of a column have as many blanks, or digits behind the point. */
const ONE_FORM_WITH_MODIFIER: ReadonlySet<number> = new Set([1042, 1700]);

/** Equal values are equal bytes, as text and in binary form. They come as the source's modifier makes them. */
function hasOneForm(
  { baseTypeOid, typeModifier, binarySafe }: CatalogColumn,
  source: RelationColumn | undefined,
): boolean {
  if (ONE_FORM.has(baseTypeOid)) return true;
  if (ONE_FORM_WITH_MODIFIER.has(baseTypeOid))
    return typeModifier >= 0 && source?.typeModifier === typeModifier;
  // Of the types of users only enums are.
  return baseTypeOid >= FIRST_UNFIXED_OID && binarySafe;
}

/** Where it cannot be told by keys what two changes have to do with each other, they count as having to do. */
export function rowKeysOf(plan: TablePlan, constraints: Constraints): RowKeys {
  const table = plan.target.oid;
  const everything: RowKeys = { table, by: "everything", own: [], references: [] };
  const own = constraints.tables.get(table);
  const related = constraints.foreignKeys.filter(({ from, to }) => from === table || to === table);
  if (own === undefined || own.fires || related.some((key) => isDoubtful(key, constraints)))
    return everything;

  const columnOf = (name: string): number | undefined => {
    const column = plan.written.find(({ target }) => target.name === name);
    return column === undefined ||
      !hasOneForm(column.target, plan.relation.columns[column.index]) ||
      own.looselyCompared.includes(name)
      ? undefined
      : column.index;
  };
  const identity = plan.key.map(({ target }) => target.name);
  // What is referred to is named by the rows that it identifies: the old values of other keys are not sent.
  const referred = related.filter(({ to }) => to === table);
  if (referred.some(({ referenced }) => !sameColumns(referenced, identity))) return everything;
  const keys = [...(identity.length === 0 ? [] : [identity]), ...own.unique].map((names) =>
    names === undefined ? undefined : keyOf(table, names, names.map(columnOf)),
  );
  const references: (RowKey & { readonly table: number })[] = [];
  for (const { to, columns, referenced } of related.filter(({ from }) => from === table)) {
    const key = keyOf(to, referenced, columns.map(columnOf));
    if (key === undefined) return everything;
    references.push({ ...key, table: to });
  }
  if (plan.wholeRow || keys.includes(undefined)) return { table, by: "table", own: [], references };
  const byId = new Map(keys.map((key) => [(key as RowKey).id, key as RowKey]));
  return { table, by: "keys", own: [...byId.values()], references };
}

/** A partitioned table's rows may be looked for, or written, under the name of a partition. */
function isDoubtful({ from, to, acts, sameTypes }: ForeignKey, { tables }: Constraints): boolean {
  return acts || !sameTypes || tables.get(from) === undefined || tables.get(to) === undefined;
}

const sameColumns = (some: readonly string[], others: readonly string[]): boolean =>
  some.length === others.length && some.every((name) => others.includes(name));

/** `names` are the owner's columns, `columns` where their values are; undefined when one has none. */
function keyOf(
  owner: number,
  names: readonly string[],
  columns: readonly (number | undefined)[],
): RowKey | undefined {
  if (columns.includes(undefined)) return undefined;
  const sorted = names
    .map((name, at) => ({ name, column: columns[at] as number }))
    .toSorted((a, b) => (a.name < b.name ? -1 : 1));
  let id = owner;
  for (const character of sorted.map(({ name }) => name).join("\0"))
    id = Math.imul(id ^ (character.codePointAt(0) as number), 0x01000193);
  return { id, columns: sorted.map(({ column }) => column) };
}
