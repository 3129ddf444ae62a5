import { describe, expect, test } from "vitest";
import { catalogColumn, catalogTable } from "../../test/support/catalog.ts";
import type { CatalogColumn } from "../postgres/catalog.ts";
import type { Constraints, ForeignKey, TableConstraints } from "../postgres/constraints.ts";
import type { RowKey } from "./footprint.ts";
import { rowKeysOf } from "./row-keys.ts";
import type { TablePlan } from "./table-plan.ts";

/** The columns are where they are in the row image; undefined for one that is not written. */
function planOf(
  columns: readonly (string | CatalogColumn | undefined)[],
  { oid = 1, key = ["id"], wholeRow = false }: { oid?: number; key?: string[]; wholeRow?: boolean } = {},
): TablePlan {
  const written = columns.flatMap((column, index) =>
    column === undefined
      ? []
      : [{ index, target: typeof column === "string" ? catalogColumn(column) : column }],
  );
  return {
    relation: {
      id: 900 + oid,
      schema: "public",
      name: "t",
      replicaIdentity: "default",
      columns: columns.map((column) => ({
        ...catalogColumn("unused", typeof column === "object" ? column : {}),
        partOfKey: false,
      })),
    },
    target: catalogTable({ oid, columns: written.map(({ target }) => target) }),
    label: "public.t",
    written,
    key: key.map((name) => written.find(({ target }) => target.name === name) as (typeof written)[0]),
    wholeRow,
    hasColumnsOfItsOwn: false,
    sharedBy: 1,
  };
}

/** Tables 1 and 2 have a primary key `id`. */
function constraintsOf(
  change: Partial<TableConstraints> = {},
  foreignKeys: readonly ForeignKey[] = [],
): Constraints {
  const table: TableConstraints = { unique: [["id"]], fires: false, looselyCompared: [] };
  return {
    tables: new Map([
      [1, { ...table, ...change }],
      [2, table],
    ]),
    foreignKeys,
  };
}

const IN_DOUBT = { own: [], references: [] };

describe("rows are told by", () => {
  test("the primary key, once, wherever it is in the row image", () => {
    const keys = rowKeysOf(planOf(["v", undefined, "id"]), constraintsOf());
    expect(keys).toEqual({
      table: 1,
      by: "keys",
      own: [{ id: expect.any(Number) as number, columns: [2] }],
      references: [],
    });
  });

  test("the identity and every unique index, each with an id of its own", () => {
    const unique = [["id"], ["a"], ["b"], ["a", "b"], ["ab"]];
    const { by, own } = rowKeysOf(planOf(["id", "a", "b", "ab"]), constraintsOf({ unique }));
    expect(by).toBe("keys");
    expect(own.map(({ columns }) => columns)).toEqual([[0], [1], [2], [1, 2], [3]]);
    expect(new Set(own.map(({ id }) => id)).size).toBe(5);
  });

  test("an identity that is no unique index of the target", () => {
    const { own } = rowKeysOf(planOf(["id", "a"]), constraintsOf({ unique: [["a"]] }));
    expect(own.map(({ columns }) => columns)).toEqual([[0], [1]]);
  });

  test("one key where the identity and a unique index have the same columns in another order", () => {
    const unique = [
      ["a", "b"],
      ["b", "a"],
    ];
    const { by, own } = rowKeysOf(planOf(["b", "a"], { key: ["b", "a"] }), constraintsOf({ unique }));
    expect(by).toBe("keys");
    expect(own.map(({ columns }) => columns)).toEqual([[1, 0]]);
  });

  test("the same key where another relation has the columns elsewhere", () => {
    const constraints = constraintsOf({ unique: [["a", "b"]] });
    const [one] = rowKeysOf(planOf(["a", "b"], { key: ["a", "b"] }), constraints).own;
    const [other] = rowKeysOf(planOf(["b", "v", "a"], { key: ["b", "a"] }), constraints).own;
    expect(one).toEqual({ id: other?.id, columns: [0, 1] });
    expect(other?.columns).toEqual([2, 0]);
  });

  test("another key where another table has the same columns", () => {
    const [one] = rowKeysOf(planOf(["id"]), constraintsOf()).own;
    const [other] = rowKeysOf(planOf(["id"], { oid: 2 }), constraintsOf()).own;
    expect(one?.columns).toEqual(other?.columns);
    expect(one?.id).not.toBe(other?.id);
  });

  test("its unique indexes alone, or nothing, where a table has no identity and no row is changed", () => {
    const insertOnly = planOf(["id", "a"], { key: [] });
    expect(rowKeysOf(insertOnly, constraintsOf({ unique: [["a"]] }))).toMatchObject({
      by: "keys",
      own: [{ columns: [1] }],
    });
    expect(rowKeysOf(insertOnly, constraintsOf({ unique: [] }))).toMatchObject({ by: "keys", own: [] });
  });
});

const ENUM_OID = 16_400;
const NUMERIC_10_2 = ((10 << 16) | 2) + 4;

describe("a key's values", () => {
  test.for([
    ["boolean", { typeOid: 16 }],
    ["bytea", { typeOid: 17 }],
    ['"char"', { typeOid: 18 }],
    ["name", { typeOid: 19 }],
    ["bigint", { typeOid: 20 }],
    ["smallint", { typeOid: 21 }],
    ["integer", { typeOid: 23 }],
    ["text", { typeOid: 25 }],
    ["oid", { typeOid: 26 }],
    ["varchar", { typeOid: 1043 }],
    ["varchar(5)", { typeOid: 1043, typeModifier: 9 }],
    ["date", { typeOid: 1082 }],
    ["timestamp", { typeOid: 1114 }],
    ["timestamptz", { typeOid: 1184 }],
    ["uuid", { typeOid: 2950 }],
    ["numeric(10,2)", { typeOid: 1700, typeModifier: NUMERIC_10_2 }],
    ["char(5)", { typeOid: 1042, typeModifier: 9 }],
    ["an enum", { typeOid: ENUM_OID }],
    ["a domain over integer", { typeOid: 16_401, baseTypeOid: 23 }],
    ["a domain over an enum", { typeOid: 16_401, baseTypeOid: ENUM_OID }],
  ] as const)("of %s have one form each", ([, type]) => {
    const named = (name: string): CatalogColumn => catalogColumn(name, type);
    expect(rowKeysOf(planOf([named("id")]), constraintsOf()).by).toBe("keys");
    expect(rowKeysOf(planOf(["id", named("u")]), constraintsOf({ unique: [["u"]] })).by).toBe("keys");
  });

  test("come with the source's scale, which need not be the target's", () => {
    const plan = planOf([catalogColumn("id", { typeOid: 1700, typeModifier: NUMERIC_10_2 })]);
    const [column] = plan.relation.columns;
    const relation = { ...plan.relation, columns: [{ ...column!, typeModifier: NUMERIC_10_2 - 1 }] };
    expect(rowKeysOf({ ...plan, relation }, constraintsOf()).by).toBe("table");
  });

  test.for([
    ["real", { typeOid: 700 }],
    ["float8", { typeOid: 701 }],
    ["interval", { typeOid: 1186 }],
    ["numeric", { typeOid: 1700 }],
    ["bpchar", { typeOid: 1042 }],
    ["timetz", { typeOid: 1266 }],
    ["jsonb", { typeOid: 3802 }],
    ["inet", { typeOid: 869 }],
    ["citext", { typeOid: 16_402, binarySafe: false }],
    ["a domain over numeric", { typeOid: 16_403, baseTypeOid: 1700 }],
    ["a domain over citext", { typeOid: 16_404, baseTypeOid: 16_402, binarySafe: false }],
  ] as const)("of %s may have several forms: any two changes of the table count", ([, type]) => {
    const named = (name: string): CatalogColumn => catalogColumn(name, type);
    const table = { ...IN_DOUBT, table: 1, by: "table" };
    expect(rowKeysOf(planOf([named("id")]), constraintsOf())).toEqual(table);
    expect(rowKeysOf(planOf(["id", named("u")]), constraintsOf({ unique: [["u"]] }))).toEqual(table);
    expect(rowKeysOf(planOf(["id", "a", named("u")]), constraintsOf({ unique: [["a", "u"]] }))).toEqual(
      table,
    );
    expect(rowKeysOf(planOf(["id", named("v")]), constraintsOf()).by).toBe("keys");
  });
});

describe("any two changes of a table count as having to do with each other", () => {
  test.for([
    ["a unique index is over expressions or some rows", { unique: [["id"], undefined] }],
    ["a column of a unique index is not written", { unique: [["id"], ["absent"]] }],
    ["the identity's collation takes different texts for equal", { looselyCompared: ["id"] }],
    ["a unique column's does", { unique: [["u"]], looselyCompared: ["u"] }],
  ] as const)("where %s", ([, change]) => {
    expect(rowKeysOf(planOf(["id", "u"]), constraintsOf(change))).toEqual({
      ...IN_DOUBT,
      table: 1,
      by: "table",
    });
  });

  test("where a row is found by all of its columns", () => {
    const plan = planOf(["id", "u"], { key: [], wholeRow: true });
    expect(rowKeysOf(plan, constraintsOf())).toEqual({ ...IN_DOUBT, table: 1, by: "table" });
  });

  test("but not where the collation of another column takes different texts for equal", () => {
    expect(rowKeysOf(planOf(["id", "v"]), constraintsOf({ looselyCompared: ["v"] })).by).toBe("keys");
  });
});

describe("it cannot be told what a change does", () => {
  const everything = { ...IN_DOUBT, table: 1, by: "everything" };

  test("where triggers or rules fire, whatever the keys are", () => {
    expect(rowKeysOf(planOf(["id"]), constraintsOf({ fires: true }))).toEqual(everything);
    expect(rowKeysOf(planOf(["id"]), constraintsOf({ fires: true, unique: [undefined] }))).toEqual(
      everything,
    );
    expect(rowKeysOf(planOf(["id"], { oid: 2 }), constraintsOf({ fires: true })).by).toBe("keys");
  });

  test("of a table that was not there when the constraints were read", () => {
    expect(rowKeysOf(planOf(["id"], { oid: 3 }), constraintsOf())).toEqual({ ...everything, table: 3 });
  });
});

describe("a foreign key", () => {
  /** From `parent` of table 2 to `id` of table 1. */
  const foreignKey: ForeignKey = {
    from: 2,
    to: 1,
    columns: ["parent"],
    referenced: ["id"],
    sameTypes: true,
    acts: false,
  };
  const parent = planOf(["v", "id", "u"]);
  const child = planOf(["id", "v", "parent"], { oid: 2 });

  test("is looked up by the key of the table that it refers to", () => {
    const constraints = constraintsOf({}, [foreignKey]);
    const parents = rowKeysOf(parent, constraints);
    expect(parents).toMatchObject({ by: "keys", own: [{ columns: [1] }], references: [] });
    expect(rowKeysOf(child, constraints)).toEqual({
      table: 2,
      by: "keys",
      own: [{ id: expect.any(Number) as number, columns: [0] }],
      references: [{ id: parents.own[0]?.id, columns: [2], table: 1 }],
    });
  });

  test("is looked up also of a table that has no keys to tell its own rows by", () => {
    const { by, references } = rowKeysOf(
      { ...child, key: [], wholeRow: true },
      constraintsOf({}, [foreignKey]),
    );
    expect([by, references]).toMatchObject(["table", [{ columns: [2], table: 1 }]]);
  });

  test("of several columns has them in the order of the key that it refers to", () => {
    const constraints = constraintsOf({ unique: [["y", "x"]] }, [
      { ...foreignKey, columns: ["to_y", "to_x"], referenced: ["y", "x"] },
      { ...foreignKey, columns: ["also_x", "also_y"], referenced: ["x", "y"] },
    ]);
    const [own] = rowKeysOf(planOf(["y", "x"], { key: ["y", "x"] }), constraints).own as [RowKey];
    expect(own.columns).toEqual([1, 0]);
    const { references } = rowKeysOf(
      planOf(["id", "to_x", "to_y", "also_y", "also_x"], { oid: 2 }),
      constraints,
    );
    expect(references).toEqual([
      { id: own.id, columns: [1, 2], table: 1 },
      { id: own.id, columns: [4, 3], table: 1 },
    ]);
  });

  test("may be to the table itself", () => {
    const constraints = constraintsOf({}, [{ ...foreignKey, from: 1, columns: ["u"] }]);
    const { by, own, references } = rowKeysOf(parent, constraints);
    expect(by).toBe("keys");
    expect(references).toEqual([{ id: own[0]?.id, columns: [2], table: 1 }]);
  });

  test.for([
    ["changes rows of its own", { acts: true }],
    ["compares different types", { sameTypes: false }],
    ["is from a table that is not known", { from: 3 }],
    ["is to a table that is not known", { to: 3 }],
  ] as const)("that %s leaves in doubt what changes of its tables do", ([, change]) => {
    const key = { ...foreignKey, ...change };
    const constraints = constraintsOf({}, [key]);
    for (const [oid, plan] of [
      [1, parent],
      [2, child],
    ] as const) {
      const related = key.from === oid || key.to === oid;
      expect(rowKeysOf(plan, constraints).by).toBe(related ? "everything" : "keys");
    }
  });

  test.for([
    ["to a unique key that is not the identity", ["u"], ["parent"], ["id"]],
    ["to some columns of the identity", ["id"], ["parent"], ["id", "u"]],
    ["to more columns than the identity has", ["id", "u"], ["parent", "v"], ["id"]],
    ["to a table whose rows have no identity", ["id"], ["parent"], []],
  ] as const)("%s leaves in doubt what a change of the row does", ([, referenced, columns, identity]) => {
    const constraints = constraintsOf({ unique: [["id"], ["u"]] }, [{ ...foreignKey, referenced, columns }]);
    const plan = planOf(["v", "id", "u"], { key: [...identity] });
    expect(rowKeysOf(plan, constraints)).toEqual({ ...IN_DOUBT, table: 1, by: "everything" });
    // Changes of the first have to do with all others, so with these.
    expect(rowKeysOf(child, constraints).references).toMatchObject([{ table: 1 }]);
  });

  test("from a column whose values have several forms, or that is not written, leaves in doubt what its rows need", () => {
    const constraints = constraintsOf({}, [foreignKey]);
    const loose = constraintsOf({}, [{ ...foreignKey, from: 1, to: 2, columns: ["u"] }]);
    const everything = { ...IN_DOUBT, by: "everything" };
    const float = catalogColumn("parent", { typeOid: 701 });
    expect(rowKeysOf(planOf(["id", float], { oid: 2 }), constraints)).toEqual({ ...everything, table: 2 });
    expect(rowKeysOf(planOf(["id", undefined], { oid: 2 }), constraints)).toEqual({
      ...everything,
      table: 2,
    });
    const [one, two] = [...loose.tables.values()];
    const tables = new Map([
      [1, { ...(one as TableConstraints), looselyCompared: ["u"] }],
      [2, two as TableConstraints],
    ]);
    expect(rowKeysOf(parent, { ...loose, tables })).toEqual({ ...everything, table: 1 });
  });

  test("of other tables is of no account", () => {
    const constraints = constraintsOf({}, [{ ...foreignKey, from: 3, to: 4, acts: true }]);
    expect(rowKeysOf(parent, constraints)).toMatchObject({ by: "keys", references: [] });
    expect(rowKeysOf(child, constraints)).toMatchObject({ by: "keys", references: [] });
  });
});
