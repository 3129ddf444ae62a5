/** How the source identifies a row in UPDATE and DELETE (pg_class.relreplident). */
export type ReplicaIdentity = "default" | "nothing" | "full" | "index";

export interface RelationColumn {
  readonly name: string;
  /** pg_type.oid on the source; stable across servers only for built-in types. */
  readonly typeOid: number;
  readonly typeModifier: number;
  /** Part of the replica identity; with identity `full`, every column is. */
  readonly partOfKey: boolean;
}

/**
 * A source table as the change stream describes it. A new object replaces the old one whenever the
 * stream describes the table anew, so object identity tells whether a compiled plan is still valid.
 */
export interface Relation {
  /** pg_class.oid on the source. */
  readonly id: number;
  readonly schema: string;
  readonly name: string;
  readonly replicaIdentity: ReplicaIdentity;
  readonly columns: readonly RelationColumn[];
}
