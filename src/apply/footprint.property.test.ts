import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { rowChange, type SentValue, tuple, UNSENT } from "../../test/support/row-changes.ts";
import { type Change, RowChange, type RowChangeKind, TruncateChange } from "../change/change.ts";
import type { Group } from "../change/group.ts";
import type { Lsn } from "../change/lsn.ts";
import type { Relation } from "../change/relation.ts";
import { Footprint, type RowKeys } from "./footprint.ts";

/** With a key `k`, which is always first, a unique column `u`, and `v`. */
function relationOf(table: number, columns: readonly string[] = ["k", "u", "v"]): Relation {
  return {
    id: table,
    schema: "public",
    name: `t${table}`,
    replicaIdentity: "default",
    columns: columns.map((name, at) => ({ name, typeOid: 25, typeModifier: -1, partOfKey: at === 0 })),
  };
}

const identityOf = (table: number): number => 10 * table;

function keysOf({ id, columns }: Relation): RowKeys {
  const at = (name: string): number => columns.findIndex((column) => column.name === name);
  return {
    table: id,
    by: "keys",
    own: [
      { id: identityOf(id), columns: [at("k")] },
      { id: identityOf(id) + 1, columns: [at("u")] },
    ],
    references: [],
  };
}

function groupOf(changes: readonly Change[], part: Partial<Group> = {}): Group {
  const transaction = { xid: 1, commitLsn: 1n as Lsn, endLsn: 2n as Lsn, commitTime: 0 };
  return {
    changes,
    members: [{ transaction, end: changes.length }],
    begins: true,
    ends: true,
    size: 0,
    ...part,
  };
}

/** Whether the groups meet, asked from both sides. */
function meet(
  [some, others]: readonly [readonly Change[], readonly Change[]],
  keys: (relation: Relation) => RowKeys = keysOf,
): boolean {
  const [a, b] = [some, others].map((changes) => new Footprint(groupOf(changes), keys)) as [
    Footprint,
    Footprint,
  ];
  const answer = a.meets(b);
  // Its hashes are there by now; those of a new one are not.
  expect([b.meets(a), new Footprint(groupOf(others), keys).meets(a)]).toEqual([answer, answer]);
  return answer;
}

interface Op {
  readonly table: number;
  readonly layout: number;
  readonly kind: RowChangeKind | "rekey";
  readonly key: string;
  readonly to: string;
  readonly unique: string | null;
  readonly keepsUnique: boolean;
  readonly value: string;
  readonly commits: boolean;
}

/** What a group has done to one table. */
interface Touched {
  readonly keys: Set<string>;
  readonly uniques: Set<string>;
  insertsOnly: boolean;
}

interface Committed {
  readonly changes: RowChange[];
  readonly tables: Map<number, Touched>;
}

/** The stream may describe a table anew, and two source tables may be one on the target. */
const LAYOUTS = [
  ["k", "u", "v"],
  ["k", "v", "u"],
];
const relations = [1, 2].map((table) => LAYOUTS.map((columns) => relationOf(table, columns)));

/** Runs random statements, and leaves out those that the source would refuse; the groups in the order of their commits. */
function history(ops: readonly Op[]): Committed[] {
  const rows = relations.map(() => new Map<string, string | null>());
  const groups: Committed[] = [];
  let open: Committed = { changes: [], tables: new Map() };
  for (const op of ops) {
    perform(rows[op.table] as Map<string, string | null>, op, open);
    if (!op.commits || open.changes.length === 0) continue;
    groups.push(open);
    open = { changes: [], tables: new Map() };
  }
  return open.changes.length === 0 ? groups : [...groups, open];
}

function perform(rows: Map<string, string | null>, op: Op, { changes, tables }: Committed): void {
  const isInsert = op.kind === "insert";
  if (rows.has(op.key) === isInsert) return;
  const key = op.kind === "rekey" ? op.to : op.key;
  if (op.kind === "rekey" && rows.has(key)) return;
  const keepsUnique = op.keepsUnique && !isInsert;
  const unique = keepsUnique ? (rows.get(op.key) ?? null) : op.unique;
  const taken = [...rows].some(([other, theirs]) => other !== op.key && theirs === unique);
  if (op.kind !== "delete" && unique !== null && taken) return;

  const touched = tables.get(op.table) ?? { keys: new Set(), uniques: new Set(), insertsOnly: true };
  tables.set(op.table, touched);
  touched.insertsOnly &&= isInsert;
  touched.keys.add(op.key).add(key);
  rows.delete(op.key);
  const relation = relations[op.table]?.[op.layout] as Relation;
  const old = op.kind === "rekey" || op.kind === "delete" ? op.key : undefined;
  if (op.kind === "delete") {
    changes.push(rowChange("delete", relation, old, undefined));
    return;
  }
  rows.set(key, unique);
  // It is there for the other's key, and not sent, or sent as it was.
  if (unique !== null && !(keepsUnique && op.layout === 0)) touched.uniques.add(unique);
  const sent: Record<string, SentValue> = {
    k: key,
    u: keepsUnique && op.layout === 0 ? UNSENT : unique,
    v: op.value,
  };
  const values = relation.columns.map(({ name }) => sent[name] as SentValue);
  changes.push(rowChange(isInsert ? "insert" : "update", relation, old, values));
}

const sharesAny = (some: ReadonlySet<string>, others: ReadonlySet<string>): boolean =>
  [...some].some((value) => others.has(value));

/** The same for keys, unique values and values that are no key, so that one is told from another. */
const value = fc.constantFrom(...Array.from("abcdefghijklmnop"), "", "ab", "aa", "é", "long".repeat(100));
const op: fc.Arbitrary<Op> = fc.record({
  table: fc.nat(1),
  layout: fc.nat(1),
  kind: fc.constantFrom("insert", "insert", "update", "delete", "rekey"),
  key: value,
  to: value,
  unique: fc.option(value),
  keepsUnique: fc.boolean(),
  value,
  commits: fc.boolean(),
});

test("groups meet that touch a row or set a unique value in common, and others do not, unless both only insert", () => {
  fc.assert(
    fc.property(fc.array(op, { maxLength: 60, size: "max" }), (ops) => {
      const groups = history(ops);
      for (const [index, later] of groups.entries())
        for (const earlier of groups.slice(0, index)) {
          const shared = [...earlier.tables].flatMap(([table, a]) => {
            const b = later.tables.get(table);
            if (b === undefined) return [];
            const inCommon = sharesAny(a.keys, b.keys) || sharesAny(a.uniques, b.uniques);
            return [{ inCommon, insertsOnly: a.insertsOnly && b.insertsOnly }];
          });
          const met = meet([earlier.changes, later.changes]);
          if (shared.some(({ inCommon, insertsOnly }) => inCommon && !insertsOnly)) expect(met).toBe(true);
          // For another table's sake, the keys of one that both only insert into may be looked at too.
          if (!shared.some(({ inCommon }) => inCommon)) expect(met).toBe(false);
          if (shared.every(({ insertsOnly }) => insertsOnly)) expect(met).toBe(false);
        }
    }),
    { numRuns: 1_000 },
  );
});

describe("a group", () => {
  const [a, b] = [relationOf(1), relationOf(2)];
  const insert = (relation: Relation, ...values: SentValue[]): RowChange =>
    rowChange("insert", relation, undefined, values);
  const update = (relation: Relation, ...values: SentValue[]): RowChange =>
    rowChange("update", relation, undefined, values);
  const remove = (relation: Relation, key: string): RowChange =>
    rowChange("delete", relation, key, undefined);

  test("with a TRUNCATE meets every other", () => {
    expect(meet([[new TruncateChange([a], false, false, 10)], [insert(b, "1", null, "x")]])).toBe(true);
    expect(
      meet([[insert(b, "1", null, "x"), new TruncateChange([a], true, false, 10)], [remove(b, "2")]]),
    ).toBe(true);
  });

  test.for([
    ["the first slice", { ends: false }],
    ["a slice in the middle", { begins: false, ends: false }],
    ["the last slice", { begins: false }],
  ] as const)("that is %s of a transaction meets every other", ([, part]) => {
    const slice = new Footprint(groupOf([insert(a, "1", null, "x")], part), keysOf);
    const other = new Footprint(groupOf([insert(b, "1", null, "x")]), keysOf);
    expect([slice.meets(other), other.meets(slice)]).toEqual([true, true]);
  });

  test("whose table has no keys to tell by meets each other of that table, and none of another table", () => {
    const whole = (relation: Relation): RowKeys =>
      relation === a ? { table: 1, by: "table", own: [], references: [] } : keysOf(relation);
    expect(meet([[insert(a, "1", null, "x")], [insert(a, "2", null, "x")]], whole)).toBe(true);
    expect(meet([[insert(b, "1", null, "x"), remove(a, "1")], [update(a, "2", null, "x")]], whole)).toBe(
      true,
    );
    expect(meet([[update(a, "1", null, "x")], [update(b, "1", null, "x")]], whole)).toBe(false);
  });

  test("of which it cannot be told what it does meets every other", () => {
    const doubtful = (relation: Relation): RowKeys =>
      relation === a ? { table: 1, by: "everything", own: [], references: [] } : keysOf(relation);
    expect(meet([[insert(a, "1", null, "x")], [insert(b, "2", null, "x")]], doubtful)).toBe(true);
    expect(meet([[insert(b, "1", null, "x"), insert(a, "1", null, "x")], [remove(b, "2")]], doubtful)).toBe(
      true,
    );
  });

  test("that changes a row after it inserted others has changed the table", () => {
    const changes = [insert(a, "1", null, "x"), insert(b, "1", null, "x"), insert(a, "2", null, "x")];
    expect(meet([[...changes, update(a, "2", null, "y")], [insert(a, "2", null, "x")]])).toBe(true);
    expect(meet([changes, [insert(a, "2", null, "x")]])).toBe(false);
  });

  test("that only inserts does not meet another that does, whatever their keys are", () => {
    const row = insert(a, "1", "u", "x");
    expect(meet([[row], [row]])).toBe(false);
    expect(meet([[row], [update(a, "2", "u", "x")]])).toBe(true);
    expect(meet([[row], [remove(a, "1")]])).toBe(true);
  });

  test("does not meet another by a unique key with a NULL, or with a value that was not sent", () => {
    for (const nothing of [null, UNSENT] as const)
      expect(meet([[update(a, "1", nothing, "x")], [update(a, "2", nothing, "x")]])).toBe(false);
    expect(meet([[update(a, "1", "", "x")], [update(a, "2", null, "x")]])).toBe(false);
    expect(meet([[update(a, "1", "", "x")], [update(a, "2", "", "x")]])).toBe(true);
    const pair = (relation: Relation): RowKeys => ({
      ...keysOf(relation),
      own: [
        { id: 1, columns: [0] },
        { id: 2, columns: [2, 1] },
      ],
    });
    expect(meet([[update(a, "1", null, "x")], [update(a, "2", null, "x")]], pair)).toBe(false);
    expect(meet([[update(a, "1", "u", "x")], [update(a, "2", "u", "x")]], pair)).toBe(true);
    // The other column may have changed.
    expect(meet([[update(a, "1", UNSENT, "x")], [update(a, "2", "u", "x")]], pair)).toBe(true);
  });

  test("does not take the values of a key for others that are as long together", () => {
    const pair = (relation: Relation): RowKeys => ({
      ...keysOf(relation),
      own: [{ id: 1, columns: [0, 1] }],
    });
    expect(meet([[update(a, "ab", "c", "x")], [update(a, "a", "bc", "x")]], pair)).toBe(false);
    expect(meet([[update(a, "ab", "c", "x")], [update(a, "ab", "c", "y")]], pair)).toBe(true);
  });

  test("that gives up a unique value meets who takes it, where the whole old row is sent", () => {
    const old = tuple(["1", "u", "x"]);
    const now = tuple(["1", "w", "x"]);
    const change = new RowChange("update", a, Buffer.concat([old, now]), 0, false, old.length, false, 100);
    expect(meet([[change], [insert(a, "2", "u", "x")]])).toBe(true);
    expect(meet([[change], [insert(a, "2", "w", "x")]])).toBe(true);
    expect(meet([[change], [insert(a, "2", "y", "x")]])).toBe(false);
  });

  test("asks for no keys before it is compared", () => {
    const asked: Relation[] = [];
    const keys = (relation: Relation): RowKeys => {
      asked.push(relation);
      return keysOf(relation);
    };
    const footprint = new Footprint(groupOf([insert(a, "1", null, "x")]), keys);
    expect(asked).toEqual([]);
    footprint.meets(new Footprint(groupOf([]), keys));
    expect(asked).toContain(a);
  });

  describe("with a foreign key", () => {
    /** `u` of the second table refers to the first. */
    const referring = (relation: Relation): RowKeys =>
      relation.name === "t1"
        ? keysOf(relation)
        : {
            table: 2,
            by: "keys",
            own: [{ id: identityOf(2), columns: [0] }],
            references: [{ id: identityOf(1), columns: [1], table: 1 }],
          };
    const child = insert(b, "7", "1", "x");

    test.for([
      ["inserts", insert(a, "1", null, "x")],
      ["changes", update(a, "1", null, "x")],
      ["gives another key", rowChange("update", a, "1", ["2", null, "x"])],
      ["gives the key", rowChange("update", a, "2", ["1", null, "x"])],
      ["deletes", remove(a, "1")],
    ] as const)("meets who %s the row that it refers to", ([, parent]) => {
      expect(meet([[parent], [child]], referring)).toBe(true);
      expect(meet([[parent], [update(b, "8", "1", "x")]], referring)).toBe(true);
    });

    test("does not meet who changes another row of that table, or its unique value", () => {
      expect(meet([[remove(a, "2")], [child]], referring)).toBe(false);
      expect(meet([[insert(a, "7", "1", "1")], [child]], referring)).toBe(false);
      expect(meet([[remove(a, "1")], [insert(b, "7", null, "x")]], referring)).toBe(false);
    });

    test("does not meet who refers to the same row", () => {
      expect(meet([[child], [insert(b, "8", "1", "x")]], referring)).toBe(false);
      expect(meet([[update(b, "7", "1", "x")], [update(b, "8", "1", "x")]], referring)).toBe(false);
    });

    test("meets each other of the table that it refers to where that has no keys to tell by", () => {
      const whole = (relation: Relation): RowKeys =>
        relation.name === "t1" ? { table: 1, by: "table", own: [], references: [] } : referring(relation);
      expect(meet([[remove(a, "2")], [child]], whole)).toBe(true);
    });

    test("does not make less of a table that has no keys to tell by and that it changes itself", () => {
      const whole = (relation: Relation): RowKeys =>
        relation.name === "t1" ? { table: 1, by: "table", own: [], references: [] } : referring(relation);
      const parent = insert(a, "1", null, "x");
      const other = insert(b, "8", "2", "x");
      expect(meet([[parent, child], [other]], whole)).toBe(true);
      expect(meet([[child, parent], [other]], whole)).toBe(true);
      expect(meet([[child], [other]], whole)).toBe(false);
    });

    test("to its own table meets who inserts the row that it refers to", () => {
      const itself = (relation: Relation): RowKeys => ({
        table: 1,
        by: "keys",
        own: [{ id: identityOf(relation.id), columns: [0] }],
        references: [{ id: identityOf(relation.id), columns: [1], table: 1 }],
      });
      expect(meet([[insert(a, "1", null, "x")], [insert(a, "2", "1", "x")]], itself)).toBe(true);
      expect(meet([[insert(a, "1", null, "x")], [insert(a, "2", "3", "x")]], itself)).toBe(false);
    });
  });
});
