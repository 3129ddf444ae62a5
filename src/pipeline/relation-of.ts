import type { Relation } from "../change/relation.ts";
import type { ReplicatedTable } from "../postgres/selection.ts";

/** The relation as the stream will describe it, from the catalogue. */
export function relationOf(table: ReplicatedTable): Relation {
  const { source } = table;
  return {
    id: source.oid,
    schema: source.schema,
    name: source.name,
    replicaIdentity: source.replicaIdentity,
    columns: source.columns
      .filter((column) => table.columns.includes(column.name))
      .map((column) => ({
        name: column.name,
        typeOid: column.typeOid,
        typeModifier: column.typeModifier,
        partOfKey: source.replicaIdentity === "full" || source.identityColumns.includes(column.name),
      })),
  };
}
