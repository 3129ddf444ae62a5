import type { CatalogColumn, CatalogTable } from "../../src/postgres/catalog.ts";

/** A nullable int4 column without anything, as the catalogue describes it. */
export function catalogColumn(name: string, change: Partial<CatalogColumn> = {}): CatalogColumn {
  return {
    name,
    typeOid: 23,
    typeName: "integer",
    delimiter: ",",
    typeModifier: -1,
    baseTypeOid: change.typeOid ?? 23,
    definition: `${name} integer`,
    notNull: false,
    hasDefault: false,
    generated: false,
    virtual: false,
    identity: "",
    binarySafe: true,
    composite: false,
    baseType: null,
    equalitySchema: "pg_catalog",
    ...change,
  };
}

/** An ordinary table public.t without a key. */
export function catalogTable(change: Partial<CatalogTable> = {}): CatalogTable {
  return {
    oid: 1,
    schema: "public",
    name: "t",
    partitioned: false,
    unlogged: false,
    root: undefined,
    replicaIdentity: "default",
    identityColumns: [],
    uniqueKeys: [],
    missingPrivileges: [],
    columns: [],
    ...change,
  };
}
