import { RowChange } from "../change/change.ts";
import type { Group } from "../change/group.ts";
import type { Relation } from "../change/relation.ts";
import { COLUMN_BINARY, COLUMN_TEXT, TupleReader } from "../change/tuple.ts";
import { KeySet } from "./key-set.ts";

/** A key by which two changes may have to do with each other. */
export interface RowKey {
  /** The same for equal columns of one table of the target, from wherever they are looked at. */
  readonly id: number;
  /** Where its columns are in the row image, in an order that goes with `id`. */
  readonly columns: readonly number[];
}

/** What the changes of one relation have to do with other rows of the target. */
export interface RowKeys {
  /** pg_class.oid on the target. */
  readonly table: number;
  /**
   * `keys` tell which changes have to do with one another; with `table` any two of it may; `everything` cannot be told at all, such
   * as what a trigger writes.
   */
  readonly by: "keys" | "table" | "everything";
  /** Identity and unique keys. */
  readonly own: readonly RowKey[];
  /** Keys of rows that this one refers to, where the target looks whether they are there. */
  readonly references: readonly (RowKey & { readonly table: number })[];
}

type Use = "inserts" | "changes" | "whole";

/**
 * What a group touches, to tell whether another may be written at the same time. The old unique values of a row are not known, for
 * the source does not send them: whoever takes a value over that an earlier group gives up waits for that in the server, or fails and
 * is written again. No earlier group can wait for a later one by the keys that are here.
 */
export class Footprint {
  readonly #group: Group;
  readonly #keysOf: (relation: Relation) => RowKeys;
  /** By OID; undefined for everything. */
  #uses: ReadonlyMap<number, Use> | undefined | "unknown" = "unknown";
  #keys: { readonly own: KeySet; readonly references: KeySet } | undefined;

  /** `keysOf` is not asked before the first `meets`. */
  constructor(group: Group, keysOf: (relation: Relation) => RowKeys) {
    this.#group = group;
    this.#keysOf = keysOf;
  }

  /** Whether the groups may touch a row, or a unique value, in common. */
  meets(other: Footprint): boolean {
    const [tables, others] = [this.#tables(), other.#tables()];
    if (tables === undefined || others === undefined) return true;
    let compares = false;
    for (const [table, use] of tables) {
      const otherUse = others.get(table);
      if (otherUse === undefined) continue;
      if (use === "whole" || otherUse === "whole") return true;
      // The source has taken inserts alone without one being in the other's way.
      if (use === "changes" || otherUse === "changes") compares = true;
    }
    if (!compares) return false;
    const [a, b] = [this.#hashes(), other.#hashes()];
    return a.own.meets(b.own) || a.own.meets(b.references) || a.references.meets(b.own);
  }

  #tables(): ReadonlyMap<number, Use> | undefined {
    if (this.#uses === "unknown") this.#uses = this.#read();
    return this.#uses;
  }

  #read(): Map<number, Use> | undefined {
    const uses = new Map<number, Use>();
    const note = (table: number, use: Use): void => {
      const before = uses.get(table);
      if (before === undefined || use === "whole" || (use === "changes" && before === "inserts"))
        uses.set(table, use);
    };
    // Of a transaction that is written in slices the rest is not known.
    if (!this.#group.begins || !this.#group.ends) return undefined;
    let last: Relation | undefined;
    let inserts = false;
    for (const change of this.#group.changes) {
      if (!(change instanceof RowChange)) return undefined;
      const asBefore = change.relation === last && (change.kind === "insert" || !inserts);
      if (asBefore && !change.lacksColumns) continue;
      last = change.relation;
      inserts = change.kind === "insert";
      const { by, table, own, references } = this.#keysOf(last);
      if (by === "everything") return undefined;
      // Of a key with several columns one may have changed and another not been sent.
      const whole = by === "table" || (change.lacksColumns && own.some(({ columns }) => columns.length > 1));
      note(table, whole ? "whole" : inserts ? "inserts" : "changes");
      for (const reference of references) note(reference.table, "changes");
    }
    return uses;
  }

  #hashes(): { readonly own: KeySet; readonly references: KeySet } {
    if (this.#keys !== undefined) return this.#keys;
    const keys = { own: new KeySet(), references: new KeySet() };
    for (const change of this.#group.changes) {
      if (!(change instanceof RowChange)) continue;
      const { own, references } = this.#keysOf(change.relation);
      const { bytes, oldStart, newStart } = change;
      for (const key of own) {
        if (oldStart >= 0) addKey(keys.own, key, bytes, oldStart);
        if (newStart >= 0) addKey(keys.own, key, bytes, newStart);
      }
      for (const key of references) if (newStart >= 0) addKey(keys.references, key, bytes, newStart);
    }
    this.#keys = keys;
    return keys;
  }
}

const reader = new TupleReader();

/** Adds the hash of a key's values; none when one is NULL, which equals nothing, or was not sent: a single one has not changed then. */
function addKey(set: KeySet, { id, columns }: RowKey, bytes: Buffer, start: number): void {
  // As cyrb53 does it: two multiplicative hashes side by side.
  let high = 0xdeadbeef ^ id;
  let low = 0x41c6ce57 ^ id;
  for (const index of columns) {
    reader.reset(bytes, start);
    for (let column = 0; column <= index; column++) reader.next();
    if (reader.kind !== COLUMN_BINARY && reader.kind !== COLUMN_TEXT) return;
    high = Math.imul(high ^ reader.length, 0x85ebca77);
    low = Math.imul(low ^ reader.length, 0xc2b2ae3d);
    const end = reader.start + reader.length;
    for (let at = reader.start; at < end; at++) {
      const byte = bytes[at] as number;
      high = Math.imul(high ^ byte, 0x9e3779b1);
      low = Math.imul(low ^ byte, 0x5f356495);
    }
  }
  set.add(
    Math.imul(high ^ (high >>> 16), 0x85ebca6b) ^ Math.imul(low ^ (low >>> 13), 0xc2b2ae35),
    Math.imul(low ^ (low >>> 16), 0x85ebca6b) ^ Math.imul(high ^ (high >>> 13), 0xc2b2ae35),
  );
}
