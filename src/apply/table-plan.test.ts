import { describe, expect, test } from "vitest";
import type { CatalogTable } from "../postgres/catalog.ts";
import type { Relation, ReplicaIdentity } from "../change/relation.ts";
import { catalogColumn, catalogTable } from "../../test/support/catalog.ts";
import { type PlanInput, planTable } from "./table-plan.ts";

function relation(
  columns: readonly (string | { name: string; typeOid?: number; key?: boolean })[],
  replicaIdentity: ReplicaIdentity = "default",
): Relation {
  return {
    id: 1,
    schema: "public",
    name: "t",
    replicaIdentity,
    columns: columns.map((column) => {
      const { name, typeOid = 23, key = false } = typeof column === "string" ? { name: column } : column;
      return { name, typeOid, typeModifier: -1, partOfKey: replicaIdentity === "full" || key };
    }),
  };
}

function input(change: Partial<PlanInput>): PlanInput {
  const described = change.relation ?? relation([{ name: "id", key: true }, "v"]);
  return {
    relation: described,
    table: {
      columns: described.columns.map(({ name }) => name),
      computed: [],
      sharedBy: 1,
      columnList: false,
      target: { schema: "public", name: "t" },
      publishes: "all",
    },
    target: catalogTable({ columns: [catalogColumn("id"), catalogColumn("v")], uniqueKeys: [["id"]] }),
    sourceTypes: new Map(),
    definitionOf: () => undefined,
    missingColumn: "stop",
    ...change,
  };
}

const names = (columns: readonly { target: { name: string } }[]): string[] =>
  columns.map(({ target }) => target.name);
const indexes = (columns: readonly { index: number }[]): number[] => columns.map(({ index }) => index);

describe("columns", () => {
  test("are matched by name, whatever their order, and extra ones of the target are left alone", () => {
    const plan = planTable(
      input({
        target: catalogTable({ columns: [catalogColumn("extra"), catalogColumn("v"), catalogColumn("id")] }),
      }),
    );
    expect(names(plan.written)).toEqual(["id", "v"]);
    expect(indexes(plan.written)).toEqual([0, 1]);
    expect(names(plan.key)).toEqual(["id"]);
    expect(plan).toMatchObject({ wholeRow: false, label: "public.t" });
  });

  test("that the target computes, or that the column list leaves out, are not written", () => {
    const described = relation([{ name: "id", key: true }, "hidden", "computed", "v"]);
    const target = catalogTable({
      columns: [
        catalogColumn("id"),
        catalogColumn("hidden"),
        catalogColumn("computed", { generated: true }),
        catalogColumn("v"),
      ],
    });
    const plan = planTable(
      input({
        relation: described,
        target,
        table: { ...input({}).table, columns: ["id", "computed", "v"], columnList: true },
      }),
    );
    expect(names(plan.written)).toEqual(["id", "v"]);
    expect(indexes(plan.written)).toEqual([0, 3]);
  });

  test("that the target lacks are refused with the remedy, or ignored where the policy says so", () => {
    const target = catalogTable({ columns: [catalogColumn("id")] });
    expect(() => planTable(input({ target }))).toThrow(
      expect.objectContaining({
        code: "ERS-402",
        subject: "public.t.v",
        remedy: expect.stringContaining("Add it to public.t on the target, with the values"),
      }),
    );
    expect(() => planTable(input({ target, definitionOf: () => '"v" integer' }))).toThrow(
      expect.objectContaining({
        remedy: expect.stringContaining('ALTER TABLE public.t ADD COLUMN "v" integer;'),
      }),
    );
    expect(names(planTable(input({ target, missingColumn: "ignore" })).written)).toEqual(["id"]);
  });

  test("that only the target has must be able to stay away", () => {
    const extra = (change: Parameters<typeof catalogColumn>[1]): PlanInput =>
      input({
        target: catalogTable({
          columns: [
            catalogColumn("id"),
            catalogColumn("v"),
            catalogColumn("extra", { notNull: true, ...change }),
          ],
        }),
      });
    expect(() => planTable(extra({}))).toThrow(
      expect.objectContaining({ code: "ERS-406", subject: "public.t.extra" }),
    );
    for (const fine of [
      { hasDefault: true },
      { notNull: false },
      { identity: "a" as const },
      { generated: true },
    ])
      expect(names(planTable(extra(fine)).written)).toEqual(["id", "v"]);
  });

  test("must have the same type: by OID when built in, else by name in whatever schema", () => {
    const described = relation([
      { name: "id", key: true },
      { name: "v", typeOid: 20_001 },
    ]);
    const sourceTypes = new Map([[20_001, catalogColumn("m", { typeName: "app.mood" })]]);
    const target = (typeOid: number, typeName: string): ReturnType<typeof catalogTable> =>
      catalogTable({ columns: [catalogColumn("id"), catalogColumn("v", { typeOid, typeName })] });
    expect(
      names(planTable(input({ relation: described, sourceTypes, target: target(30_001, "mood") })).written),
    ).toEqual(["id", "v"]);
    expect(
      names(
        planTable(input({ relation: described, sourceTypes, target: target(30_001, '"My.Schema".mood') }))
          .written,
      ),
    ).toEqual(["id", "v"]);
    expect(() => planTable(input({ relation: described, sourceTypes, target: target(25, "text") }))).toThrow(
      expect.objectContaining({
        code: "ERS-403",
        message: expect.stringContaining("app.mood on the source and text on the target"),
      }),
    );
    expect(() => planTable(input({ target: target(20, "bigint") }))).toThrow(
      expect.objectContaining({ code: "ERS-403", subject: "public.t.v" }),
    );
  });

  test("a table that is not there is named", () => {
    expect(() => planTable(input({ target: undefined }))).toThrow(
      expect.objectContaining({ code: "ERS-401", subject: "public.t" }),
    );
  });
});

test("a column that the source computes is not written, though the target has an ordinary one or none", () => {
  const described = relation([{ name: "id", key: true }, "twice", "thrice", "v"]);
  const target = catalogTable({ columns: [catalogColumn("id"), catalogColumn("twice"), catalogColumn("v")] });
  const plan = planTable(
    input({
      relation: described,
      target,
      table: { ...input({}).table, columns: ["id", "v"], computed: ["twice", "thrice"] },
    }),
  );
  expect(names(plan.written)).toEqual(["id", "v"]);
});

describe("identity", () => {
  test("of the source, in the order of its columns, whatever keys the target has", () => {
    const described = relation(["v", { name: "b", key: true }, { name: "a", key: true }], "index");
    const target = catalogTable({
      columns: ["a", "b", "v"].map((name) => catalogColumn(name)),
      uniqueKeys: [["v"]],
    });
    expect(names(planTable(input({ relation: described, target })).key)).toEqual(["b", "a"]);
  });

  test("full: a unique key of the target when all of it is written, else the whole row", () => {
    const described = relation(["a", "b"], "full");
    const columns = ["a", "b", "c"].map((name) => catalogColumn(name));
    const withKeys = (...uniqueKeys: string[][]): PlanInput =>
      input({ relation: described, target: catalogTable({ columns, uniqueKeys }) });
    expect(planTable(withKeys(["b", "a"]))).toMatchObject({ wholeRow: false });
    expect(names(planTable(withKeys(["c"], ["b"])).key)).toEqual(["b"]);
    expect(planTable(withKeys(["c"]))).toMatchObject({ wholeRow: true, key: [] });
    expect(planTable(withKeys())).toMatchObject({ wholeRow: true });
  });

  test("none: no row can be found; of a table published for inserts only, one that the target computes is none", () => {
    expect(planTable(input({ relation: relation(["id", "v"]) }))).toMatchObject({ key: [], wholeRow: false });
    const inserts = { ...input({}).table, publishes: "insert" as const };
    // Changes from before the key was dropped still come with it.
    expect(names(planTable(input({ table: inserts })).key)).toEqual(["id"]);
    const computed = catalogTable({
      columns: [catalogColumn("id", { generated: true }), catalogColumn("v")],
    });
    expect(planTable(input({ table: inserts, target: computed }))).toMatchObject({
      key: [],
      wholeRow: false,
    });
  });

  test("a narrower column is refused, a wider one is not", () => {
    const described = relation([
      { name: "id", key: true },
      { name: "v", typeOid: 1700 },
    ]);
    const numeric = (precision: number, scale: number): number => ((precision << 16) | scale) + 4;
    const source = {
      ...described,
      columns: described.columns.map((c) => ({ ...c, typeModifier: c.name === "v" ? numeric(12, 4) : -1 })),
    };
    const target = (modifier: number): CatalogTable =>
      catalogTable({
        columns: [
          catalogColumn("id"),
          catalogColumn("v", { typeOid: 1700, typeName: "numeric", typeModifier: modifier }),
        ],
      });
    expect(() => planTable(input({ relation: source, target: target(numeric(12, 2)) }))).toThrow(
      expect.objectContaining({
        code: "ERS-403",
        message: 'column "v" of public.t is numeric(12,4) on the source and numeric(12,2) on the target',
      }),
    );
    expect(names(planTable(input({ relation: source, target: target(numeric(14, 4)) })).written)).toEqual([
      "id",
      "v",
    ]);
  });

  test("must be written on the target", () => {
    const target = catalogTable({ columns: [catalogColumn("v")] });
    expect(() => planTable(input({ target, missingColumn: "ignore" }))).toThrow(
      expect.objectContaining({ code: "ERS-409", message: expect.stringContaining('"id"') }),
    );
    const computed = catalogTable({
      columns: [catalogColumn("id", { generated: true }), catalogColumn("v")],
    });
    expect(() => planTable(input({ target: computed }))).toThrow(
      expect.objectContaining({ code: "ERS-409" }),
    );
  });
});
