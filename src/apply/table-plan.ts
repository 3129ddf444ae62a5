import type { Relation, RelationColumn } from "../change/relation.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { type CatalogColumn, type CatalogTable, FIRST_UNFIXED_OID, tableLabel } from "../postgres/catalog.ts";
import type { ReplicatedTable } from "../postgres/selection.ts";
import { modifierText, narrows } from "./type-modifier.ts";

/** A column of the stream and the target column that it is written to. */
export interface PlannedColumn {
  /** Index in the row image. */
  readonly index: number;
  readonly target: CatalogColumn;
}

/** How the changes of one relation are written to one target table; made anew when either side changes. */
export interface TablePlan {
  readonly relation: Relation;
  readonly target: CatalogTable;
  readonly label: string;
  /** The columns to write, in the order of the row image. */
  readonly written: readonly PlannedColumn[];
  /** The columns that find the row; empty when every column must (`wholeRow`). */
  readonly key: readonly PlannedColumn[];
  /** No key: a row is found by the image of all its columns, and one of several equal rows is taken. */
  readonly wholeRow: boolean;
  /** The target's table has columns that are not written: of the target alone, or left out. */
  readonly hasColumnsOfItsOwn: boolean;
  /** How many source relations write to the target's table: see ReplicatedTable. */
  readonly sharedBy: number;
}

/** UPDATE cannot set an identity column that is ALWAYS generated. */
export function hasAlwaysIdentity({ target }: TablePlan): boolean {
  return target.columns.some((column) => column.identity === "a");
}

/** UPDATE can set no column at all, and each row is written anew. */
export function hasNothingToSet({ target }: TablePlan): boolean {
  return target.columns.every((column) => column.identity === "a" || column.generated);
}

export type SourceType = Pick<CatalogColumn, "typeName" | "baseType" | "typeModifier">;

export interface PlanInput {
  readonly relation: Relation;
  readonly table: Pick<
    ReplicatedTable,
    "columns" | "computed" | "columnList" | "sharedBy" | "target" | "publishes"
  >;
  /** The target's table, undefined when there is none. */
  readonly target: CatalogTable | undefined;
  /** The source's types by OID, as far as they are known. */
  readonly sourceTypes: ReadonlyMap<number, SourceType>;
  /** How to add a column that the target lacks: see CatalogColumn.definition. */
  readonly definitionOf: (column: string) => string | undefined;
  readonly missingColumn: "stop" | "ignore";
}

/**
 * Matches columns by name. Throws ERS-401, 402, 403, 406 or 409, which name the table, the column and the remedy.
 * A column list that the source is too old to publish by is honoured here.
 */
export function planTable(input: PlanInput): TablePlan {
  const { relation, table, target, missingColumn } = input;
  const label = tableLabel(table.target.schema, table.target.name);
  if (target === undefined) throw tableAbsent(label);
  const byName = new Map(target.columns.map((column) => [column.name, column]));
  const columns = relation.columns.map((column, index): PlannedColumn | undefined => {
    if (table.computed.includes(column.name) || (table.columnList && !table.columns.includes(column.name)))
      return undefined;
    const match = byName.get(column.name);
    if (match === undefined) {
      if (missingColumn === "ignore") return undefined;
      throw columnAbsent(label, column.name, input.definitionOf(column.name));
    }
    // The target computes it from the others.
    if (match.generated) return undefined;
    requireSameType(label, column, match, input.sourceTypes);
    return { index, target: match };
  });
  const written = columns.filter((column) => column !== undefined);
  requireDefaults(label, target, new Set(written.map((column) => column.target.name)));

  const identity = columns.filter((_column, index) => relation.columns[index]?.partOfKey);
  // The source then lets no UPDATE or DELETE through, or does not publish it.
  const insertOnly =
    // A table may have no columns at all, and FULL then sends none of them: its rows are all equal.
    (identity.length === 0 && relation.replicaIdentity !== "full") ||
    (table.publishes === "insert" && identity.includes(undefined));
  const key = insertOnly ? [] : keyColumns(relation, target, columns, label);
  return {
    relation,
    target,
    label,
    written,
    key,
    wholeRow: !insertOnly && key.length === 0,
    hasColumnsOfItsOwn: target.columns.some(
      (column) => !column.generated && !written.some((own) => own.target === column),
    ),
    sharedBy: table.sharedBy,
  };
}

/**
 * The identity that the source sends. With REPLICA IDENTITY FULL the source sends every column: a unique key of
 * the target then finds the row by its index, and without one all columns must be equal.
 */
function keyColumns(
  relation: Relation,
  target: CatalogTable,
  columns: readonly (PlannedColumn | undefined)[],
  label: string,
): PlannedColumn[] {
  if (relation.replicaIdentity === "full") {
    const byTargetName = new Map(
      columns.flatMap((column) => (column === undefined ? [] : [[column.target.name, column] as const])),
    );
    const usable = target.uniqueKeys.find((names) => names.every((name) => byTargetName.has(name)));
    return (usable ?? []).map((name) => byTargetName.get(name) as PlannedColumn);
  }
  return relation.columns.flatMap((column, index) => {
    if (!column.partOfKey) return [];
    const planned = columns[index];
    if (planned === undefined) {
      throw new ErserverError(
        "ERS-409",
        `column "${column.name}" identifies the rows of ${label} on the source and is not written on the target`,
        {
          subject: label,
          remedy: `Add the column to ${label} on the target (ALTER TABLE … ADD COLUMN), as an ordinary one; then start erserver again.`,
        },
      );
    }
    return [planned];
  });
}

function requireDefaults(label: string, target: CatalogTable, written: ReadonlySet<string>): void {
  for (const column of target.columns) {
    if (
      written.has(column.name) ||
      !column.notNull ||
      column.hasDefault ||
      column.identity !== "" ||
      column.generated
    )
      continue;
    throw new ErserverError(
      "ERS-406",
      `${label}.${column.name} exists on the target only, is NOT NULL and has no default: no row could be inserted`,
      {
        subject: `${label}.${column.name}`,
        remedy: `On the target: ALTER TABLE ${label} ALTER COLUMN "${column.name}" SET DEFAULT …; (or DROP NOT NULL, or drop the column).`,
      },
    );
  }
}

/** Built-in types have the same OID everywhere; others are compared by name, in whatever schema. */
function requireSameType(
  label: string,
  column: RelationColumn,
  target: CatalogColumn,
  sourceTypes: ReadonlyMap<number, SourceType>,
): void {
  const known = sourceTypes.get(column.typeOid);
  const builtIn = column.typeOid < FIRST_UNFIXED_OID;
  const same = builtIn ? column.typeOid === target.typeOid : known === undefined || isSameType(known, target);
  const modifier = builtIn ? column.typeModifier : known?.typeModifier;
  if (same && (modifier === undefined || !narrows(target.baseTypeOid, modifier, target.typeModifier))) return;
  const typeName = known?.typeName ?? (same ? target.typeName : `type ${column.typeOid}`);
  const name = typeText(typeName, column.typeOid, column.typeModifier);
  throw new ErserverError(
    "ERS-403",
    `column "${column.name}" of ${label} is ${name} on the source and ${typeText(target.typeName, target.typeOid, target.typeModifier)} on the target`,
    {
      subject: `${label}.${column.name}`,
      remedy: `On the target: ALTER TABLE ${label} ALTER COLUMN "${column.name}" TYPE ${name}; then start erserver again.`,
    },
  );
}

/** A domain of the same name over another type is another type. */
function isSameType(source: SourceType, target: SourceType): boolean {
  return (
    unqualified(source.typeName) === unqualified(target.typeName) &&
    unqualified(source.baseType ?? "") === unqualified(target.baseType ?? "")
  );
}

/** `numeric(12,4)`, `numeric(12,4)[]`. */
function typeText(typeName: string, typeOid: number, modifier: number): string {
  return typeName.replace(/(?:\[\])*$/, (brackets) => modifierText(typeOid, modifier) + brackets);
}

const unqualified = (typeName: string): string => typeName.replace(/^(?:"(?:[^"]|"")*"|[^".]*)\./, "");

export function tableAbsent(...labels: readonly string[]): ErserverError {
  const list = labels.join(", ");
  const options = labels.map((label) => `--table='${label}'`).join(" ");
  const are = labels.length === 1 ? `table ${list} does` : `tables ${list} do`;
  return new ErserverError("ERS-401", `${are} not exist on the target`, {
    subject: list,
    remedy: `Create what is missing (pg_dump --schema-only ${options} of the source, into the target), or exclude it in the configuration.`,
  });
}

function columnAbsent(label: string, column: string, definition: string | undefined): ErserverError {
  const add =
    definition === undefined
      ? `Add it to ${label} on the target, with the values that old rows have on the source`
      : `On the target: ALTER TABLE ${label} ADD COLUMN ${definition}`;
  return new ErserverError("ERS-402", `column "${column}" of ${label} does not exist on the target`, {
    subject: `${label}.${column}`,
    remedy: `${add}; then erserver run goes on. Or \`missing_column: ignore\` in the configuration to leave such columns out.`,
  });
}
