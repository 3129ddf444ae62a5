import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { catalogColumn, catalogTable } from "../../test/support/catalog.ts";
import { rowChange, UNSENT } from "../../test/support/row-changes.ts";
import { type RowChange, type RowChangeKind, TruncateChange } from "../change/change.ts";
import type { Group, GroupMember } from "../change/group.ts";
import type { Lsn } from "../change/lsn.ts";
import type { Relation } from "../change/relation.ts";
import { COLUMN_NULL, COLUMN_UNCHANGED, TupleReader } from "../change/tuple.ts";
import { fold, type Step } from "./fold.ts";
import type { TablePlan } from "./table-plan.ts";

/** Key, value, and one that is not sent when it did not change. */
type Row = readonly [key: string, value: string, large: string];

function rowOf(change: RowChange, start: number): (string | null | typeof UNSENT)[] {
  const reader = new TupleReader().reset(change.bytes, start);
  return Array.from({ length: reader.columns }, () => {
    reader.next();
    if (reader.kind === COLUMN_UNCHANGED) return UNSENT;
    if (reader.kind === COLUMN_NULL) return null;
    return change.bytes.toString("utf8", reader.start, reader.start + reader.length);
  });
}

const relations = ["a", "b"].map((name, index): Relation => ({
  id: index,
  schema: "public",
  name,
  replicaIdentity: "default",
  columns: ["k", "v", "large"].map((column, at) => ({
    name: column,
    typeOid: 25,
    typeModifier: -1,
    partOfKey: at === 0,
  })),
}));

function planFor(relation: Relation, change: Partial<TablePlan> = {}): TablePlan {
  const columns = relation.columns.map(({ name }) => catalogColumn(name, { typeOid: 25 }));
  const written = columns.map((target, index) => ({ index, target }));
  return {
    relation,
    target: catalogTable({ name: relation.name, columns }),
    label: relation.name,
    written,
    key: written.slice(0, 1),
    wholeRow: false,
    hasColumnsOfItsOwn: false,
    sharedBy: 1,
    ...change,
  };
}

/** A table's rows by key. */
type Tables = readonly Map<string, Row>[];

const copyOf = (tables: Tables): Map<string, Row>[] => tables.map((rows) => new Map(rows));

interface Op {
  readonly table: number;
  readonly kind: RowChangeKind | "rekey" | "truncate";
  readonly key: string;
  readonly to: string;
  readonly value: string;
  readonly keepsLarge: boolean;
  readonly commits: boolean;
}

/** What the source sends for it, once it has done it; undefined when it cannot be done. */
function perform(tables: Map<string, Row>[], op: Op): RowChange | TruncateChange | undefined {
  const rows = tables[op.table] as Map<string, Row>;
  const relation = relations[op.table] as Relation;
  const row = rows.get(op.key);
  if (op.kind === "truncate") {
    rows.clear();
    return new TruncateChange([relation], false, false, 10);
  }
  if (op.kind === "insert") {
    if (row !== undefined) return undefined;
    const inserted: Row = [op.key, op.value, `${op.value} large`];
    rows.set(op.key, inserted);
    return rowChange("insert", relation, undefined, inserted);
  }
  if (row === undefined) return undefined;
  if (op.kind === "delete") {
    rows.delete(op.key);
    return rowChange("delete", relation, op.key, undefined);
  }
  const key = op.kind === "rekey" ? op.to : op.key;
  if (op.kind === "rekey" && rows.has(key)) return undefined;
  const updated: Row = [key, op.value, op.keepsLarge ? row[2] : `${op.value} large`];
  rows.delete(op.key);
  rows.set(key, updated);
  const sent = op.keepsLarge ? ([key, op.value, UNSENT] as const) : updated;
  return rowChange("update", relation, op.kind === "rekey" ? op.key : undefined, sent);
}

/** What the target does: fails where it would not affect exactly one row. */
function write(tables: Map<string, Row>[], steps: readonly Step[]): void {
  const indexOf = ({ relation }: { relation: Relation }): number => relations.indexOf(relation);
  const take = (rows: Map<string, Row>, key: string): Row => {
    const row = rows.get(key);
    if (row === undefined) throw new Error(`no row ${key}`);
    rows.delete(key);
    return row;
  };
  const put = (rows: Map<string, Row>, row: readonly (string | null | typeof UNSENT)[]): void => {
    if (rows.has(row[0] as string)) throw new Error(`row ${String(row[0])} is there`);
    if (row.includes(UNSENT) || row.includes(null)) throw new Error("a row is not complete");
    rows.set(row[0] as string, row as unknown as Row);
  };
  const update = (rows: Map<string, Row>, key: string, change: RowChange): void => {
    const before = take(rows, key);
    put(
      rows,
      rowOf(change, change.newStart).map((value, at) => (value === UNSENT ? (before[at] as string) : value)),
    );
  };
  for (const step of steps) {
    if (step.kind === "change") {
      const { change } = step;
      if (change instanceof TruncateChange)
        for (const relation of change.relations) tables[indexOf({ relation })]?.clear();
      else {
        const rows = tables[indexOf(change)] as Map<string, Row>;
        const key = rowOf(change, change.oldStart < 0 ? change.newStart : change.oldStart)[0] as string;
        if (change.kind !== "update") throw new Error("only an update is done in place");
        update(rows, key, change);
      }
      continue;
    }
    for (const { plan, deletes } of step.tables)
      for (const change of deletes)
        take(tables[indexOf(plan)] as Map<string, Row>, rowOf(change, change.oldStart)[0] as string);
    for (const { plan, updates } of step.tables)
      for (const change of updates)
        update(
          tables[indexOf(plan)] as Map<string, Row>,
          rowOf(change, change.newStart)[0] as string,
          change,
        );
    for (const { plan, inserts } of step.tables)
      for (const change of inserts)
        put(tables[indexOf(plan)] as Map<string, Row>, rowOf(change, change.newStart));
  }
}

function groupOf(changes: readonly (RowChange | TruncateChange)[], ends: readonly number[]): Group {
  const members = ends.map((end, index): GroupMember => ({
    end,
    transaction: {
      xid: index,
      commitLsn: BigInt(index + 1) as Lsn,
      endLsn: BigInt(index + 2) as Lsn,
      commitTime: 0,
    },
  }));
  return { changes, members, begins: true, ends: true, size: 0 };
}

const key = fc.constantFrom("1", "2", "3", "4", "", "é");
const op: fc.Arbitrary<Op> = fc.record({
  table: fc.nat(1),
  kind: fc.oneof(
    { weight: 20, arbitrary: fc.constantFrom("insert", "update", "delete", "rekey" as const) },
    { weight: 1, arbitrary: fc.constant("truncate" as const) },
  ),
  key,
  to: key,
  value: fc.string({ maxLength: 3 }),
  keepsLarge: fc.boolean(),
  commits: fc.boolean(),
});

/** Runs random statements; returns the tables before, the group, and the tables after. */
function history(before: readonly Op[], ops: readonly Op[]): { from: Tables; group: Group; to: Tables } {
  const tables = relations.map(() => new Map<string, Row>());
  for (const each of before) perform(tables, each);
  const from = copyOf(tables);
  const changes: (RowChange | TruncateChange)[] = [];
  const ends: number[] = [];
  for (const each of ops) {
    const change = perform(tables, each);
    if (change !== undefined) changes.push(change);
    if (each.commits && (ends.at(-1) ?? 0) < changes.length) ends.push(changes.length);
  }
  if ((ends.at(-1) ?? 0) < changes.length) ends.push(changes.length);
  return { from, group: groupOf(changes, ends), to: tables };
}

describe("folded changes", () => {
  test.for([
    ["tables alike on both sides", false],
    ["columns that only the target has", true],
  ] as const)("come to what the changes come to one by one: %s", ([, hasColumnsOfItsOwn]) => {
    const plans = relations.map((relation) => planFor(relation, { hasColumnsOfItsOwn }));
    fc.assert(
      fc.property(
        fc.array(op, { maxLength: 20, size: "max" }),
        fc.array(op, { maxLength: 60, size: "max" }),
        (before, ops) => {
          const { from, group, to } = history(before, ops);
          const folded = fold(group, ({ id }) => plans[id] as TablePlan);
          if (folded === undefined) throw new Error("the source did it");
          const target = copyOf(from);
          write(target, folded);
          expect(target).toEqual(to);
        },
      ),
      { numRuns: 3_000 },
    );
  });

  const [a] = relations as [Relation];
  const changesOf = (...changes: RowChange[]): readonly Step[] | undefined =>
    fold(groupOf(changes, [changes.length]), planFor);

  test("a row that comes and goes is nothing; several changes of one are one", () => {
    const plan = planFor(a);
    const folded = fold(
      groupOf(
        [
          rowChange("insert", a, undefined, ["1", "x", "l"]),
          rowChange("update", a, undefined, ["2", "x", "l"]),
          rowChange("delete", a, "1", undefined),
          rowChange("update", a, undefined, ["2", "y", UNSENT]),
        ],
        [4],
      ),
      () => plan,
    );
    expect(folded).toHaveLength(1);
    const [step] = folded ?? [];
    if (step?.kind !== "net") throw new Error("it is not folded");
    const [table] = step.tables;
    expect([table?.deletes.length, table?.updates.length, table?.inserts.length]).toEqual([0, 1, 0]);
    const update = table?.updates[0] as RowChange;
    expect(rowOf(update, update.newStart)).toEqual(["2", "y", "l"]);
  });

  test("what no source can have done is not folded", () => {
    const insert = rowChange("insert", a, undefined, ["1", "x", "l"]);
    const remove = rowChange("delete", a, "1", undefined);
    const update = rowChange("update", a, undefined, ["1", "x", "l"]);
    expect(changesOf(update, remove, remove)).toBeUndefined();
    expect(changesOf(remove, remove, insert)).toBeUndefined();
    expect(changesOf(remove, update)).toBeUndefined();
    expect(changesOf(insert, insert, update)).toBeUndefined();
    expect(changesOf(update, insert)).toBeUndefined();
    expect(changesOf(rowChange("insert", a, undefined, ["1", "x", UNSENT]))).toBeUndefined();
  });
});
