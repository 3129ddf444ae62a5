import { ErserverError } from "../errors/erserver-error.ts";
import { tableKey, tableLabel, tableLabels } from "../postgres/catalog.ts";

/** A table as one side has it registered. */
export interface Registration {
  readonly schema: string;
  readonly name: string;
  /** Column mode: which columns' changes are replicated; null for all. */
  readonly columns: readonly string[] | null;
}

/** How a registration has changed, or not. */
export type Registered = "added" | "widened" | "already";

export interface Widened {
  readonly columns: readonly string[] | null;
  readonly how: Registered;
}

/** A registration only ever gets wider: what replicates all columns goes on to. Without `column` it is of all. */
export function widen(
  before: Pick<Registration, "columns"> | undefined,
  column: string | undefined,
): Widened {
  if (before === undefined) return { columns: column === undefined ? null : [column], how: "added" };
  const { columns } = before;
  if (columns === null) return { columns, how: "already" };
  if (column === undefined) return { columns: null, how: "widened" };
  if (columns.includes(column)) return { columns, how: "already" };
  return { columns: [...columns, column], how: "widened" };
}

/** Without one of its columns; undefined when none is left, or the whole table is meant. Throws ERS-413 for one of all columns. */
export function narrow(
  { schema, name, columns }: Registration,
  column: string | undefined,
): string[] | undefined {
  if (column === undefined) return undefined;
  if (columns === null) {
    const label = tableLabel(schema, name);
    throw new ErserverError("ERS-413", `${label} is registered with all columns, not by column "${column}"`, {
      subject: label,
      remedy: "Remove the table, without a column; then add it again with the columns that are wanted.",
    });
  }
  const left = columns.filter((one) => one !== column);
  return left.length === 0 ? undefined : left;
}

export interface Comparison {
  /** On both sides, alike. */
  readonly both: readonly Registration[];
  /** Not registered on the slave, which need not have every table. */
  readonly masterOnly: readonly Registration[];
}

/** Throws ERS-413 for tables that are registered otherwise on the slave than on the master, or there alone (S36). */
export function compareRegistrations(
  master: readonly Registration[],
  slave: readonly Registration[],
): Comparison {
  const onMaster = new Map(master.map((one) => [tableKey(one.schema, one.name), one]));
  const onSlave = new Set(slave.map(({ schema, name }) => tableKey(schema, name)));
  const differing = slave.filter((one) => {
    const other = onMaster.get(tableKey(one.schema, one.name));
    return other === undefined || columnsText(other) !== columnsText(one);
  });
  if (differing.length > 0) throw differs(differing, onMaster);
  return {
    both: slave,
    masterOnly: master.filter(({ schema, name }) => !onSlave.has(tableKey(schema, name))),
  };
}

/** `all columns`, or the columns in the order of the alphabet. */
export function columnsText({ columns }: Pick<Registration, "columns">): string {
  if (columns === null) return "all columns";
  return `${columns.length === 1 ? "column" : "columns"} ${columns.toSorted().join(", ")}`;
}

function differs(
  differing: readonly Registration[],
  onMaster: ReadonlyMap<string, Registration>,
): ErserverError {
  const labels = tableLabels(differing);
  const sentences = differing.map((one) => {
    const label = tableLabel(one.schema, one.name);
    const other = onMaster.get(tableKey(one.schema, one.name));
    return other === undefined
      ? `${label} is registered on the slave (${columnsText(one)}) and not on the master`
      : `${label} is registered on the slave with ${columnsText(one)}, on the master with ${columnsText(other)}`;
  });
  return new ErserverError("ERS-413", sentences.join("; "), {
    subject: labels,
    remedy:
      "Register them alike: MasterAddTable or MasterRemoveTable on the master, SlaveAddTable or SlaveRemoveTable on the slave.",
  });
}
