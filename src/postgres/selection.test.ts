import { describe, expect, test } from "vitest";
import { catalogColumn, catalogTable } from "../../test/support/catalog.ts";
import type { TableSelector } from "../config/config.ts";
import type { CatalogTable } from "./catalog.ts";
import { type Selection, type SelectionRules, selectTables } from "./selection.ts";

const ALL: TableSelector = { schema: "*", table: "*", columns: undefined, where: undefined };

function select(
  tables: readonly CatalogTable[],
  rules: Partial<SelectionRules> = {},
  version = 180_000,
): Selection {
  return selectTables(
    tables,
    { include: [ALL], exclude: [], publishViaPartitionRoot: true, withoutKey: "stop", ...rules },
    version,
    "wal",
  );
}

function keyed(name: string, change: Partial<CatalogTable> = {}): CatalogTable {
  return catalogTable({
    name,
    columns: [catalogColumn("id", { notNull: true }), catalogColumn("v")],
    identityColumns: ["id"],
    uniqueKeys: [["id"]],
    ...change,
  });
}

const root = { schema: "public", name: "p" };
const PARTITIONED = [
  keyed("p", { partitioned: true }),
  keyed("p1", { root }),
  keyed("p2", { root, partitioned: true }),
  keyed("p2a", { root }),
];

const names = (tables: readonly { name: string }[]): string[] => tables.map(({ name }) => name);
const sources = ({ tables }: Selection): string[] => tables.map(({ source }) => source.name);
const one = (table: string, change: Partial<TableSelector> = {}): TableSelector => ({
  schema: "public",
  table,
  columns: undefined,
  where: undefined,
  ...change,
});

describe("which tables", () => {
  test("include and exclude, where the entry with columns or a filter wins over a pattern", () => {
    const tables = [keyed("a"), keyed("b"), keyed("audit_1"), keyed("x", { schema: "other" })];
    const selection = select(tables, {
      include: [{ ...ALL, schema: "public" }, one("a", { where: "id > 1" })],
      exclude: [{ ...ALL, schema: "public", table: "audit_*" }],
    });
    expect(sources(selection)).toEqual(["a", "b"]);
    expect(selection.published.map(({ where }) => where)).toEqual(["id > 1", undefined]);
    expect(selection.problems).toEqual([]);
  });

  test("a partitioned table is one table under its root's name", () => {
    const selection = select(PARTITIONED);
    expect(sources(selection)).toEqual(["p"]);
    expect(names(selection.published)).toEqual(["p"]);
  });

  test("or its leaves under their own names, which the root brings into the publication", () => {
    const selection = select(PARTITIONED, { publishViaPartitionRoot: false });
    expect(sources(selection)).toEqual(["p1", "p2a"]);
    expect(selection.tables.map(({ target }) => target.name)).toEqual(["p1", "p2a"]);
    expect(names(selection.published)).toEqual(["p"]);
    const filtered = select(PARTITIONED, {
      publishViaPartitionRoot: false,
      include: [one("p", { where: "id > 0" })],
    });
    expect(filtered.published.map(({ name, where }) => [name, where])).toEqual([
      ["p1", "id > 0"],
      ["p2a", "id > 0"],
    ]);
  });

  test("before 13 the leaves are published, and written to the root's namesake or their own", () => {
    const selection = select(PARTITIONED, {}, 120_000);
    expect(names(selection.published)).toEqual(["p1", "p2a"]);
    expect(selection.tables.map(({ source, target }) => [source.name, target.name])).toEqual([
      ["p1", "p"],
      ["p2a", "p"],
    ]);
    expect(
      select(PARTITIONED, { publishViaPartitionRoot: false }, 120_000).tables.map(({ target, sharedBy }) => [
        target.name,
        sharedBy,
      ]),
    ).toEqual([
      ["p1", 1],
      ["p2a", 1],
    ]);
    expect(selection.tables.map(({ sharedBy }) => sharedBy)).toEqual([2, 2]);
  });

  test("a partition stands alone only when its root is not selected", () => {
    expect(sources(select(PARTITIONED, { include: [one("p1")] }))).toEqual(["p1"]);
    expect(sources(select(PARTITIONED, { include: [one("p"), one("p1")] }))).toEqual(["p"]);
  });

  test("generated columns are left to the target", () => {
    const table = keyed("t", {
      columns: [catalogColumn("id"), catalogColumn("g", { generated: true }), catalogColumn("v")],
    });
    expect(select([table]).tables[0]).toMatchObject({ columns: ["id", "v"], columnList: false });
    expect(select([table]).published[0]?.columns).toBeUndefined();
  });
});

describe("what is said about tables", () => {
  test("one without a row identity is replicated for inserts only, and named with its remedy", () => {
    for (const table of [
      keyed("t", { identityColumns: [] }),
      keyed("t", { replicaIdentity: "nothing", identityColumns: [] }),
    ]) {
      const selection = select([table]);
      expect(selection.tables[0]?.publishes).toBe("insert");
      expect(selection.problems).toMatchObject([
        {
          code: "ERS-704",
          table: "public.t",
          blocks: false,
          remedy: expect.stringContaining("ALTER TABLE public.t REPLICA IDENTITY FULL"),
        },
      ]);
    }
    expect(select([keyed("t", { replicaIdentity: "full", identityColumns: [] })]).problems).toEqual([]);
  });

  test("a partition without an identity, or with less of one than the root's changes are described by", () => {
    const leaf = (change: Partial<CatalogTable>): Selection =>
      select([keyed("p", { partitioned: true }), keyed("p1", { root, ...change })]);
    expect(leaf({ identityColumns: [] }).problems).toMatchObject([
      { code: "ERS-704", message: expect.stringContaining("partition public.p1") },
    ]);
    expect(leaf({ identityColumns: ["v"] }).tables[0]?.publishes).toBe("insert");
    expect(leaf({ identityColumns: ["v", "id"] }).problems).toEqual([]);
    expect(leaf({ replicaIdentity: "full", identityColumns: [] }).problems).toEqual([]);
    const full = [keyed("p", { partitioned: true, replicaIdentity: "full" }), keyed("p1", { root })];
    expect(select(full).tables[0]?.publishes).toBe("insert");
    // Under its own name the partition's own identity counts.
    expect(select(full, { publishViaPartitionRoot: false }).problems).toEqual([]);
  });

  test("an unlogged table, or a partition of that kind, is left out by name", () => {
    const selection = select([keyed("t", { unlogged: true }), keyed("fine")]);
    expect(sources(selection)).toEqual(["fine"]);
    expect(selection.problems).toMatchObject([
      { table: "public.t", blocks: false, remedy: "ALTER TABLE public.t SET LOGGED;" },
    ]);
  });

  test.for([
    ["a column that is not there", { columns: ["id", "nope"] }, 180_000, "ERS-103", '"nope"'],
    ["a column list without the identity", { columns: ["v"] }, 180_000, "ERS-704", '"id"'],
    ["a row filter on an old source", { where: "id > 1" }, 140_000, "ERS-107", "PostgreSQL 15"],
  ] as const)("%s keeps replication from starting", ([, change, version, code, text]) => {
    const selector = one("t", "columns" in change ? { columns: [...change.columns] } : change);
    expect(select([keyed("t")], { include: [selector] }, version).problems).toMatchObject([
      { code, blocks: true, message: expect.stringContaining(text) },
    ]);
  });

  test("a generated column in a column list, and FULL without all columns", () => {
    const table = keyed("t", { columns: [catalogColumn("id"), catalogColumn("g", { generated: true })] });
    expect(select([table], { include: [one("t", { columns: ["id", "g"] })] }).problems).toMatchObject([
      { code: "ERS-103", blocks: true },
    ]);
    const full = keyed("t", { replicaIdentity: "full" });
    expect(select([full], { include: [one("t", { columns: ["id"] })] }).problems).toMatchObject([
      { code: "ERS-704", blocks: true, message: expect.stringContaining('"v"') },
    ]);
  });

  test("a table identified by computed columns is replicated for inserts only: by an index, or from 18 on by virtual ones", () => {
    const columns = [catalogColumn("id"), catalogColumn("g", { generated: true })];
    expect(select([keyed("t", { columns, identityColumns: ["g"] })], {}, 150_000)).toMatchObject({
      tables: [{ publishes: "insert" }],
      problems: [{ code: "ERS-704", blocks: false, message: expect.stringContaining('"g"') }],
    });
    const full = keyed("t", { columns, replicaIdentity: "full", identityColumns: [] });
    expect(select([full], {}, 170_000)).toMatchObject({
      problems: [],
      published: [{ publishes: "all", generatedIdentity: false }],
    });
    expect(select([full], {}, 180_000)).toMatchObject({
      problems: [],
      published: [{ publishes: "all", generatedIdentity: true }],
      tables: [{ columns: ["id"], computed: ["g"] }],
    });
    const virtual = keyed("t", {
      columns: [catalogColumn("id"), catalogColumn("g", { generated: true, virtual: true })],
      replicaIdentity: "full",
    });
    expect(select([virtual], {}, 180_000)).toMatchObject({
      tables: [{ publishes: "insert" }],
      problems: [{ code: "ERS-704" }],
    });
  });

  test("with REPLICA IDENTITY FULL a list of all columns is no list for the source, which would refuse UPDATE", () => {
    const selection = select([keyed("t", { replicaIdentity: "full" })], {
      include: [one("t", { columns: ["v", "id"] })],
    });
    expect(selection).toMatchObject({ problems: [], tables: [{ columns: ["id", "v"], columnList: true }] });
    expect(selection.published[0]?.columns).toBeUndefined();
    const leaf = [keyed("p", { partitioned: true }), keyed("p1", { root, replicaIdentity: "full" })];
    expect(select(leaf, { include: [one("p", { columns: ["id"] })] }).problems).toMatchObject([
      { code: "ERS-704", blocks: true, message: expect.stringContaining('"v"') },
    ]);
  });

  test("column lists go into the publication from 15 on", () => {
    const include = [one("t", { columns: ["id"] })];
    expect(select([keyed("t")], { include }, 150_000).published[0]?.columns).toEqual(["id"]);
    const older = select([keyed("t")], { include }, 140_000);
    expect(older.published[0]?.columns).toBeUndefined();
    expect(older.tables[0]).toMatchObject({ columns: ["id"], columnList: true });
  });
});
