import type { TableSelector } from "../config/config.ts";
import { matchesSelector } from "../config/table-pattern.ts";
import type { ErrorCode } from "../errors/codes.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { type CatalogTable, tableKey, tableLabel } from "./catalog.ts";

/** How changes are had from a source: from its WAL, or from what triggers record. */
export type CaptureKind = "wal" | "trigger";

/** A source relation whose rows are copied and whose changes arrive under its name. */
export interface ReplicatedTable {
  readonly source: CatalogTable;
  /** Names of the replicated columns, in the source's order; generated columns are left to the target. */
  readonly columns: readonly string[];
  /** Names of the columns that the source computes. The stream may bring them; they are not written. */
  readonly computed: readonly string[];
  /** Set when the configuration names columns. */
  readonly columnList: boolean;
  /** Row filter: an SQL expression over the source table. */
  readonly where: string | undefined;
  /** `insert`: the table has no row identity, so UPDATE and DELETE are not published (they would fail on the source). */
  readonly publishes: "all" | "insert";
  /** How many source relations the target's table gets its rows from: more than one for partitions that it stands for. */
  readonly sharedBy: number;
  /** Where the rows go on the target. */
  readonly target: { readonly schema: string; readonly name: string };
}

/** What a publication names: a table or the root of a partition tree. */
export interface PublishedTable {
  readonly schema: string;
  readonly name: string;
  readonly columns: readonly string[] | undefined;
  readonly where: string | undefined;
  readonly publishes: "all" | "insert";
  /** The row identity holds stored generated columns: the source wants them published. */
  readonly generatedIdentity: boolean;
}

/** Something about one table that the operator should know; `blocks` says whether replication may start. */
export interface TableProblem {
  readonly code: ErrorCode;
  readonly table: string;
  readonly message: string;
  readonly remedy: string;
  readonly blocks: boolean;
}

export interface Selection {
  readonly tables: readonly ReplicatedTable[];
  readonly published: readonly PublishedTable[];
  readonly problems: readonly TableProblem[];
}

export interface SelectionRules {
  readonly include: readonly TableSelector[];
  readonly exclude: readonly TableSelector[];
  readonly publishViaPartitionRoot: boolean;
  /** To triggers a table without a key: is refused, or replaced whole. */
  readonly withoutKey: "stop" | "refresh";
}

/**
 * Publications of partitioned tables, and publish_via_partition_root, came with 13; column lists and row filters with
 * 15. From 18 on UPDATE and DELETE fail where the row identity holds generated columns that are not published.
 */
const PARTITIONED_PUBLICATION = 130_000;
const FILTERED_PUBLICATION = 150_000;
const GENERATED_PUBLICATION = 180_000;

/**
 * Decides what is replicated. A partitioned table is one table under its root's name with
 * `publishViaPartitionRoot`, and its leaf partitions under their own names without. To triggers it always is one: a statement fires
 * those of the relation that it names.
 */
export function selectTables(
  catalog: readonly CatalogTable[],
  rules: SelectionRules,
  sourceVersion: number,
  capture: CaptureKind,
): Selection {
  return capture === "wal"
    ? selectBy(catalog, rules, sourceVersion, capture)
    : // No publication has to be able to say it.
      selectBy(
        catalog.map(identifiedByKey),
        { ...rules, publishViaPartitionRoot: true },
        FILTERED_PUBLICATION,
        capture,
      );
}

/** With triggers nothing but a key names a row: the replica identity is the WAL's. */
function identifiedByKey(table: CatalogTable): CatalogTable {
  const computed = new Set(table.columns.filter((column) => column.generated).map((column) => column.name));
  const key = table.uniqueKeys.find((names) => !names.some((name) => computed.has(name)));
  return { ...table, replicaIdentity: "index", identityColumns: key ?? [] };
}

function selectBy(
  catalog: readonly CatalogTable[],
  rules: SelectionRules,
  sourceVersion: number,
  capture: CaptureKind,
): Selection {
  const tables: ReplicatedTable[] = [];
  const published: PublishedTable[] = [];
  const problems: TableProblem[] = [];
  const leavesOf = new Map<string, CatalogTable[]>();
  for (const table of catalog) {
    if (table.root === undefined || table.partitioned) continue;
    const key = tableKey(table.root.schema, table.root.name);
    leavesOf.set(key, [...(leavesOf.get(key) ?? []), table]);
  }
  const rootsPublished = sourceVersion >= PARTITIONED_PUBLICATION;

  for (const table of catalog) {
    const selector = selectorFor(table, rules);
    // A partition follows its root; it stands alone only when the root is not selected.
    if (selector === undefined || (table.root !== undefined && isSelected(table.root, rules))) continue;
    const leaves = table.partitioned ? (leavesOf.get(tableKey(table.schema, table.name)) ?? []) : [];
    const asOne = !table.partitioned || (rules.publishViaPartitionRoot && rootsPublished);
    const { withoutKey } = rules;
    const found = inspect(table, leaves, selector, { sourceVersion, asOne, capture, withoutKey });
    problems.push(...found.problems);
    if (found.skip) continue;

    const columns = columnsOf(table, selector);
    const computed = table.columns.filter((column) => column.generated).map((column) => column.name);
    const rest = {
      computed,
      columnList: selector.columns !== undefined,
      where: selector.where,
      publishes: found.publishes,
    };
    // Changes of leaves are written to the root's namesake when the source is too old to say it itself.
    const shown = (leaf: CatalogTable): CatalogTable => (rules.publishViaPartitionRoot ? table : leaf);
    if (asOne)
      tables.push({
        source: table,
        columns,
        ...rest,
        sharedBy: 1,
        target: { schema: table.schema, name: table.name },
      });
    else
      for (const leaf of leaves)
        tables.push({
          source: leaf,
          columns,
          ...rest,
          sharedBy: rules.publishViaPartitionRoot ? leaves.length : 1,
          target: { schema: shown(leaf).schema, name: shown(leaf).name },
        });

    const filtered = selector.columns !== undefined || selector.where !== undefined;
    const whole = [table, ...leaves].some((relation) => relation.replicaIdentity === "full");
    // The source's UPDATE and DELETE fail on a table with REPLICA IDENTITY FULL and a column list, even one of all columns.
    const listed = sourceVersion >= FILTERED_PUBLICATION && selector.columns !== undefined && !whole;
    const publishAs = (name: { schema: string; name: string }): PublishedTable => ({
      schema: name.schema,
      name: name.name,
      columns: listed ? columns : undefined,
      where: selector.where,
      publishes: found.publishes,
      generatedIdentity: sourceVersion >= GENERATED_PUBLICATION && whole && computed.length > 0,
    });
    // A root that is published as such brings partitions along that are attached later.
    if (asOne || (rootsPublished && !filtered)) published.push(publishAs(table));
    else published.push(...leaves.map(publishAs));
  }
  return { tables, published, problems };
}

/** Throws ERS-306 when nothing is selected. */
export function requireTables({ tables }: Selection): void {
  if (tables.length > 0) return;
  throw new ErserverError("ERS-306", "no table of the source is to be replicated", {
    remedy: "Correct `tables` in the configuration, or the database name of `source`.",
  });
}

function selectorFor(
  table: { schema: string; name: string },
  rules: SelectionRules,
): TableSelector | undefined {
  if (rules.exclude.some((selector) => matchesSelector(selector, table.schema, table.name))) return undefined;
  const matching = rules.include.filter((selector) => matchesSelector(selector, table.schema, table.name));
  return (
    matching.find((selector) => selector.columns !== undefined || selector.where !== undefined) ?? matching[0]
  );
}

function isSelected(table: { schema: string; name: string }, rules: SelectionRules): boolean {
  return selectorFor(table, rules) !== undefined;
}

function columnsOf(table: CatalogTable, selector: TableSelector): string[] {
  const stored = table.columns.filter((column) => !column.generated).map((column) => column.name);
  return selector.columns === undefined ? stored : stored.filter((name) => selector.columns?.includes(name));
}

interface Inspection {
  readonly problems: readonly TableProblem[];
  readonly skip: boolean;
  readonly publishes: "all" | "insert";
}

function inspect(
  table: CatalogTable,
  leaves: readonly CatalogTable[],
  selector: TableSelector,
  {
    sourceVersion,
    asOne,
    capture,
    withoutKey,
  }: {
    readonly sourceVersion: number;
    readonly asOne: boolean;
    readonly capture: CaptureKind;
    readonly withoutKey: "stop" | "refresh";
  },
): Inspection {
  const label = tableLabel(table.schema, table.name);
  const problems: TableProblem[] = [];
  const problem = (code: ErrorCode, blocks: boolean, message: string, remedy: string): void => {
    problems.push({ code, table: label, message: `${label} ${message}`, remedy, blocks });
  };

  if (table.unlogged || leaves.some((leaf) => leaf.unlogged)) {
    problem(
      "ERS-704",
      false,
      "is unlogged and cannot be replicated: it leaves no WAL, and is empty after a crash",
      `ALTER TABLE ${label} SET LOGGED;`,
    );
    return { problems, skip: true, publishes: "all" };
  }
  for (const name of selector.columns ?? []) {
    const column = table.columns.find((candidate) => candidate.name === name);
    if (column === undefined)
      problem("ERS-103", true, `has no column "${name}"`, "Correct the column list in the configuration.");
    else if (column.generated)
      problem(
        "ERS-103",
        true,
        `computes column "${name}" itself`,
        "Leave generated columns out of the column list: the target computes them.",
      );
  }
  if (selector.where !== undefined && sourceVersion < FILTERED_PUBLICATION) {
    problem(
      "ERS-107",
      true,
      "has a row filter, which needs PostgreSQL 15 or newer on the source",
      "Remove `where`, or upgrade the source.",
    );
  }

  if (capture === "trigger") {
    const keyless = table.identityColumns.length === 0;
    if (keyless && withoutKey === "stop") {
      problem(
        "ERS-704",
        true,
        "has no key, so that nobody can record which of its rows change",
        `Give ${label} a primary key, or a unique index over columns that are NOT NULL; or, if it is small, have it replaced whole: --full-refresh, or \`tables: { without_key: refresh }\` in the configuration; or exclude it.`,
      );
      return { problems, skip: true, publishes: "all" };
    }
    if (table.root !== undefined)
      problem(
        "ERS-107",
        true,
        `is a partition of ${tableLabel(table.root.schema, table.root.name)}, and a statement that names that one does not fire its triggers`,
        `Include ${tableLabel(table.root.schema, table.root.name)} instead.`,
      );
    if (selector.where !== undefined)
      problem(
        "ERS-107",
        true,
        "has a row filter, which needs `capture: wal`",
        "Remove `where`, or use `capture: wal`.",
      );
    if (keyless) return { problems, skip: false, publishes: "all" };
  }

  const relations = capture === "trigger" ? [table] : [table, ...leaves];
  const computedIdentity = [
    ...new Set(relations.flatMap((relation) => computedIdentityOf(relation, sourceVersion))),
  ];
  if (computedIdentity.length > 0) {
    problem(
      "ERS-704",
      false,
      `is identified by ${computedIdentity.map((name) => `"${name}"`).join(", ")}, which the source computes and does not send: its inserts are replicated, its updates and deletes are not`,
      `On the source: ALTER TABLE ${label} REPLICA IDENTITY USING INDEX … with ordinary columns, and start erserver again. Or exclude the table.`,
    );
    return { problems, skip: false, publishes: "insert" };
  }
  const unidentified = relations.find(
    (relation) => !hasIdentity(relation) || (asOne && !sendsIdentityOf(relation, table)),
  );
  if (unidentified !== undefined) {
    const name = tableLabel(unidentified.schema, unidentified.name);
    problem(
      "ERS-704",
      false,
      `has no row identity${name === label ? "" : ` (partition ${name})`}: its inserts are replicated, its updates and deletes are not`,
      `Add a primary key, or run on the source: ALTER TABLE ${name} REPLICA IDENTITY FULL; and start erserver again. Or exclude the table.`,
    );
    return { problems, skip: false, publishes: "insert" };
  }
  if (selector.columns !== undefined) {
    const needed = relations.flatMap((relation) =>
      relation.replicaIdentity === "full"
        ? relation.columns.filter((column) => !column.generated).map((column) => column.name)
        : relation.identityColumns,
    );
    const left = [...new Set(needed)].filter((name) => !selector.columns?.includes(name));
    if (left.length > 0) {
      problem(
        "ERS-704",
        true,
        `is identified by ${left.map((name) => `"${name}"`).join(", ")}, which the column list leaves out: its UPDATE and DELETE would fail on the source`,
        "Add these columns to the column list.",
      );
    }
  }
  return { problems, skip: false, publishes: "all" };
}

/** A change under the root's name is described by the root's identity, and its old row holds what the leaf's identity logs. */
function sendsIdentityOf(leaf: CatalogTable, root: CatalogTable): boolean {
  if (leaf.replicaIdentity === "full") return true;
  return (
    root.replicaIdentity !== "full" &&
    root.identityColumns.every((name) => leaf.identityColumns.includes(name))
  );
}

/** Generated columns of the identity that the stream cannot bring: those of an index, and virtual ones. */
function computedIdentityOf(table: CatalogTable, sourceVersion: number): string[] {
  const computed = table.columns.filter((column) => column.generated);
  if (table.replicaIdentity !== "full")
    return computed.map((column) => column.name).filter((name) => table.identityColumns.includes(name));
  return sourceVersion >= GENERATED_PUBLICATION
    ? computed.filter((column) => column.virtual).map((column) => column.name)
    : [];
}

/** Whether the source lets UPDATE and DELETE through when the table is published for them. */
function hasIdentity(table: CatalogTable): boolean {
  return table.replicaIdentity === "full" || table.identityColumns.length > 0;
}
