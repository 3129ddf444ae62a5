import { ErserverError } from "../errors/erserver-error.ts";
import type { CatalogColumn } from "../postgres/catalog.ts";
import { quoteIdent, quoteQualified } from "../quote/ident.ts";
import { quoteLiteral } from "../quote/literal.ts";
import type { PlannedColumn, TablePlan } from "./table-plan.ts";

/** SQL and the type OIDs of its parameters, which are the target's column types: values arrive as the column takes them. */
export interface StatementText {
  readonly sql: string;
  readonly types: readonly number[];
  /** Where each parameter's value comes from: index in the new or the old row image. */
  readonly parameters: readonly ParameterSource[];
}

export interface ParameterSource {
  readonly image: "new" | "old";
  readonly index: number;
  /** For an array of the values of many rows. */
  readonly elements?: { readonly typeOid: number; readonly delimiter: string };
}

/** The values of one row: a parameter each. */
export class Parameters {
  readonly types: number[] = [];
  readonly sources: ParameterSource[] = [];

  add(image: "new" | "old", column: PlannedColumn): string {
    this.types.push(column.target.typeOid);
    this.sources.push({ image, index: column.index });
    return `$${this.types.length}`;
  }

  /** What comes between the assignments and the condition. */
  from(_keyword: "from" | "using"): string {
    return "";
  }

  done(sql: string): StatementText {
    return { sql, types: this.types, parameters: this.sources };
  }
}

/** The values of many rows: a parameter for each column, an array of its type, all of them as long as there are rows. */
class ArrayParameters extends Parameters {
  readonly #columns: PlannedColumn[] = [];

  override add(image: "new" | "old", column: PlannedColumn): string {
    let at = this.#columns.indexOf(column);
    if (at < 0) {
      at = this.#columns.push(column) - 1;
      // Of the cast: the OID of an array type is not known here.
      this.types.push(0);
      const { typeOid, delimiter } = column.target;
      this.sources.push({ image, index: column.index, elements: { typeOid, delimiter } });
    }
    return `${ROWS}."${at + 1}"`;
  }

  override from(keyword: "from" | "using"): string {
    const arrays = this.#columns.map(({ target }, at) => `$${at + 1}::${unmodified(target.typeName)}[]`);
    const names = this.#columns.map((_, at) => `"${at + 1}"`);
    // Not qualified: only so it takes several arrays.
    return ` ${keyword} unnest(${arrays.join(", ")}) as ${ROWS}(${names.join(", ")})`;
  }
}

/** An alias that no table of a user has. */
const ROWS = '"erserver rows"';

/** Without a modifier these two are of length 1. */
const unmodified = (typeName: string): string =>
  typeName === "character" ? "pg_catalog.bpchar" : typeName === "bit" ? 'pg_catalog."bit"' : typeName;

const tableName = (plan: TablePlan): string => quoteQualified(plan.target.schema, plan.target.name);

/** ONLY leaves inheritance children alone; a partitioned table has no rows of its own. */
const rowsOf = (plan: TablePlan): string => `${plan.target.partitioned ? "" : "only "}${tableName(plan)}`;

/** `=` of the column's own type, wherever an extension put it: our search_path is empty. */
function equals(column: CatalogColumn, parameter: string): string {
  const operator = column.equalitySchema === null ? "=" : `operator(${column.equalitySchema}.=)`;
  const cast = column.baseType === null ? "" : `::${column.baseType}`;
  return `${quoteIdent(column.name)}${cast} ${operator} ${parameter}${cast}`;
}

export function insertStatement(plan: TablePlan, parameters = new Parameters()): StatementText {
  const names = plan.written.map((column) => quoteIdent(column.target.name));
  const values = plan.written.map((column) => parameters.add("new", column));
  const overriding = plan.target.columns.some((column) => column.identity !== "")
    ? " overriding system value"
    : "";
  if (names.length === 0) return parameters.done(`insert into ${tableName(plan)} default values`);
  const from = parameters.from("from");
  const rows = from === "" ? `values (${values.join(", ")})` : `select ${values.join(", ")}${from}`;
  return parameters.done(`insert into ${tableName(plan)} (${names.join(", ")})${overriding} ${rows}`);
}

/**
 * The statement fails (22012, division_by_zero) when it affects no row, or more than one: so that COMMIT may follow without waiting
 * for its count. Not for statements that begin with WITH.
 */
export function ofOneRow(statement: StatementText): StatementText {
  return ofRows(statement, "1");
}

/** The same for a set: when it affects fewer rows than its arrays have elements, or more. */
export function ofAllRows(set: StatementText): StatementText {
  return ofRows(set, "pg_catalog.cardinality($1)");
}

function ofRows({ sql, ...rest }: StatementText, rows: string): StatementText {
  return {
    ...rest,
    sql: `with changed as (${sql} returning 1) select 1 / (count(*) = ${rows})::int from changed`,
  };
}

/**
 * `sent` are the columns that the new row image holds (unchanged TOAST values are not sent). `keyImage` says where
 * the old key is: in the old image when the source sent one, else the key did not change and is in the new one.
 */
export function updateStatement(
  plan: TablePlan,
  sent: readonly PlannedColumn[],
  keyImage: "new" | "old",
  parameters = new Parameters(),
): StatementText {
  // An identity column that is ALWAYS generated cannot be set by UPDATE; it must be as the source has it.
  const keyIsSame = keyImage === "new";
  const settable = sent.filter(
    (column) => column.target.identity !== "a" && !(keyIsSame && plan.key.includes(column)),
  );
  const fixed = sent.filter(
    (column) => column.target.identity === "a" && !(keyIsSame && plan.key.includes(column)),
  );
  const assignments = settable.map(
    (column) => `${quoteIdent(column.target.name)} = ${parameters.add("new", column)}`,
  );
  if (assignments.length === 0) {
    // See hasNothingToSet.
    const any = plan.target.columns.find((column) => column.identity !== "a" && !column.generated);
    if (any === undefined) return rewriteStatement(plan, sent, keyImage);
    assignments.push(`${quoteIdent(any.name)} = ${quoteIdent(any.name)}`);
  }
  const conditions = fixed.map((column) => equals(column.target, parameters.add("new", column)));
  const where = [rowCondition(plan, keyImage, parameters), ...conditions].join(" and ");
  const from = parameters.from("from");
  return parameters.done(`update ${rowsOf(plan)} set ${assignments.join(", ")}${from} where ${where}`);
}

/**
 * For the rare UPDATE that gives an ALWAYS identity column a new value: the row is written anew. Columns that were
 * not sent keep the target's value.
 */
export function rewriteStatement(
  plan: TablePlan,
  sent: readonly PlannedColumn[],
  keyImage: "new" | "old",
): StatementText {
  const parameters = new Parameters();
  const stored = plan.target.columns.filter((column) => !column.generated);
  const values = stored.map((column) => {
    const planned = sent.find((candidate) => candidate.target.name === column.name);
    return planned === undefined ? `old.${quoteIdent(column.name)}` : parameters.add("new", planned);
  });
  const where = rowCondition(plan, keyImage, parameters);
  const names = stored.map((column) => quoteIdent(column.name)).join(", ");
  return parameters.done(
    `with old as (delete from ${rowsOf(plan)} where ${where} returning *) ` +
      `insert into ${tableName(plan)} (${names}) overriding system value select ${values.join(", ")} from old`,
  );
}

export function deleteStatement(plan: TablePlan, parameters = new Parameters()): StatementText {
  const where = rowCondition(plan, "old", parameters);
  return parameters.done(`delete from ${rowsOf(plan)}${parameters.from("using")} where ${where}`);
}

/** Updates many rows whose key did not change, and of which the same columns were sent; undefined where arrays cannot hold the values. */
export function updateSet(plan: TablePlan, sent: readonly PlannedColumn[]): StatementText | undefined {
  const settable = sent.some(({ target }) => target.identity !== "a");
  return settable && sent.every(fitsArray)
    ? updateStatement(plan, sent, "new", new ArrayParameters())
    : undefined;
}

/** For rows that were sent whole. */
export function insertSet(plan: TablePlan): StatementText | undefined {
  return plan.written.length > 0 && plan.written.every(fitsArray)
    ? insertStatement(plan, new ArrayParameters())
    : undefined;
}

export function deleteSet(plan: TablePlan): StatementText | undefined {
  return plan.key.every(fitsArray) ? deleteStatement(plan, new ArrayParameters()) : undefined;
}

/** `unnest` takes arrays of arrays apart to the last element, and rows to columns. */
const fitsArray = ({ target }: PlannedColumn): boolean =>
  !target.composite && !target.typeName.endsWith("[]") && !target.baseType?.endsWith("[]");

export function copyInStatement(plan: TablePlan, binary: boolean): string {
  const names = plan.written.map((column) => quoteIdent(column.target.name)).join(", ");
  return `copy ${tableName(plan)} (${names}) from stdin${binary ? " (format binary)" : ""}`;
}

/** Selects the key as one JSON object of texts: for the record of a conflict, and for the operator. */
export function keyAsJson(plan: TablePlan, image: "new" | "old", parameters: Parameters): string {
  const shown = plan.key.length === 0 ? plan.written : plan.key;
  const names = shown.map((column) => quoteLiteral(column.target.name)).join(", ");
  const values = shown.map((column) => `(${parameters.add(image, column)})::text`).join(", ");
  return `pg_catalog.jsonb_object(array[${names}]::text[], array[${values}]::text[])`;
}

/**
 * Finds one row. A whole-row identity compares the images byte for byte (`*=`): no type needs an equality
 * operator, 1.0 and 1.00 are different, NULLs are equal; of equal rows any one is as good as the other.
 * https://www.postgresql.org/docs/current/functions-comparisons.html#COMPOSITE-TYPE-COMPARISON
 */
function rowCondition(plan: TablePlan, image: "new" | "old", parameters: Parameters): string {
  if (!plan.wholeRow && plan.key.length === 0) throw noIdentity(plan.label);
  if (!plan.wholeRow)
    return plan.key.map((column) => equals(column.target, parameters.add(image, column))).join(" and ");
  const names = plan.written.map(({ target }) => oneNaN(target, quoteIdent(target.name))).join(", ");
  const values = plan.written
    .map((column) => oneNaN(column.target, parameters.add(image, column)))
    .join(", ");
  // The casts keep the parser from comparing column by column, which knows no `*=`.
  const same = `row(${names})::record operator(pg_catalog.*=) row(${values})::record`;
  return plan.target.partitioned
    ? `(tableoid, ctid) = (select tableoid, ctid from ${rowsOf(plan)} where ${same} limit 1)`
    : `ctid = (select ctid from ${rowsOf(plan)} where ${same} limit 1)`;
}

/** NaN has many bit patterns: binary values keep theirs, text values get the usual one. */
function oneNaN({ typeName, baseType }: CatalogColumn, value: string): string {
  const type = baseType ?? typeName;
  return type === "real" || type === "double precision"
    ? `case when ${value} = 'NaN' then 'NaN' else ${value}::${type} end`
    : value;
}

function noIdentity(label: string): ErserverError {
  return new ErserverError(
    "ERS-704",
    `a change of ${label} arrived without a row identity to find its row by`,
    {
      subject: label,
      remedy: `Run on the source: ALTER TABLE ${label} REPLICA IDENTITY FULL; then start over for this target: erserver drop, empty its tables, erserver run.`,
    },
  );
}

export function deleteAllStatements(plans: readonly TablePlan[]): string[] {
  return [...new Set(plans.map((plan) => `delete from ${rowsOf(plan)}`))];
}

export function truncateStatement(plans: readonly TablePlan[], restartIdentity: boolean): string {
  const names = [...new Set(plans.map(rowsOf))].join(", ");
  return `truncate ${names}${restartIdentity ? " restart identity" : ""}`;
}
