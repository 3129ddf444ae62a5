import type { Relation, RelationColumn, ReplicaIdentity } from "../change/relation.ts";
import type { MessageReader } from "./message-reader.ts";

/** pg_class.relreplident */
const REPLICA_IDENTITY: Readonly<Record<string, ReplicaIdentity>> = {
  d: "default",
  n: "nothing",
  f: "full",
  i: "index",
};

const PART_OF_KEY = 1;

/** Reads a Relation message behind its type byte. */
export function readRelation(reader: MessageReader): Relation {
  const id = reader.uint32();
  // The namespace is sent as an empty string for pg_catalog.
  const schema = reader.cstring() || "pg_catalog";
  const name = reader.cstring();
  const replicaIdentity = REPLICA_IDENTITY[String.fromCharCode(reader.uint8())];
  if (replicaIdentity === undefined) throw reader.malformed("the replica identity is unknown");
  const count = reader.uint16();
  const columns: RelationColumn[] = [];
  for (let i = 0; i < count; i++) {
    const flags = reader.uint8();
    columns.push({
      name: reader.cstring(),
      typeOid: reader.uint32(),
      typeModifier: reader.int32(),
      partOfKey: replicaIdentity === "full" || (flags & PART_OF_KEY) !== 0,
    });
  }
  reader.finish();
  return { id, schema, name, replicaIdentity, columns };
}

export function sameRelation(a: Relation, b: Relation): boolean {
  return (
    a.id === b.id &&
    a.schema === b.schema &&
    a.name === b.name &&
    a.replicaIdentity === b.replicaIdentity &&
    a.columns.length === b.columns.length &&
    a.columns.every((column, i) => sameColumn(column, b.columns[i] as RelationColumn))
  );
}

function sameColumn(a: RelationColumn, b: RelationColumn): boolean {
  return (
    a.name === b.name &&
    a.typeOid === b.typeOid &&
    a.typeModifier === b.typeModifier &&
    a.partOfKey === b.partOfKey
  );
}
