import { ErserverError } from "../errors/erserver-error.ts";
import { tableKey, tableLabel, tableLabels } from "../postgres/catalog.ts";
import type { PublishedTable, ReplicatedTable, Selection } from "../postgres/selection.ts";
import type { PipelineStore, TableShape, TableState } from "../store/pipeline-store.ts";

type SelectedTables = Pick<Selection, "tables">;

/** Two pipelines with the same rows for the same table would write each of them twice. */
export function requireOwnTables(
  others: readonly { pipeline: string; schema: string; name: string }[],
  { tables }: SelectedTables,
): void {
  const wanted = new Set(tables.map(({ source }) => tableKey(source.schema, source.name)));
  const shared = others.find(({ schema, name }) => wanted.has(tableKey(schema, name)));
  if (shared === undefined) return;
  const label = tableLabel(shared.schema, shared.name);
  throw new ErserverError(
    "ERS-412",
    `${label} comes to this database by pipeline "${shared.pipeline}" already`,
    {
      subject: label,
      remedy: `Give the target the name "${shared.pipeline}" in this configuration too, or exclude the table here, or remove the other one: erserver drop --target ${shared.pipeline}, or SlaveDrop if Replicate has made it.`,
    },
  );
}

/** The tables that are copied, by key. */
export function copiedTables(states: readonly TableState[]): ReadonlyMap<string, TableState> {
  return new Map(
    states
      .filter(({ state }) => state === "finished_copy")
      .map((state) => [tableKey(state.schema, state.name), state]),
  );
}

/** What is published for tables that are copied: they themselves, or the root of their partition tree. */
export function publishedFor(
  copied: ReadonlyMap<string, TableState>,
  selection: Selection,
): PublishedTable[] {
  const followed = new Set(
    selection.tables
      .filter(({ source }) => copied.has(tableKey(source.schema, source.name)))
      .flatMap(({ source }) => [source, ...(source.root === undefined ? [] : [source.root])])
      .map(({ schema, name }) => tableKey(schema, name)),
  );
  return selection.published.filter(({ schema, name }) => followed.has(tableKey(schema, name)));
}

/** The columns and rows of a table that the configuration selects; null for all. */
function shapeOf({ columnList, columns, where }: ReplicatedTable): TableShape {
  return { columns: columnList ? columns.toSorted() : null, rowFilter: where ?? null };
}

/** What a table was copied with it must be followed with: the target has no rows and values of another selection. */
export function requireSameShape(copied: ReadonlyMap<string, TableState>, selection: Selection): void {
  for (const table of selection.tables) {
    const { schema, name } = table.source;
    const state = copied.get(tableKey(schema, name));
    if (state === undefined) continue;
    const wanted = shapeOf(table);
    const changed = [
      ...(JSON.stringify(state.columns) === JSON.stringify(wanted.columns) ? [] : ["`columns`"]),
      ...(state.rowFilter === wanted.rowFilter ? [] : ["`where`"]),
    ];
    if (changed.length === 0) continue;
    const label = tableLabel(schema, name);
    throw new ErserverError("ERS-411", `${changed.join(" and ")} of ${label} changed after it was copied`, {
      subject: label,
      remedy: `Undo the change in the configuration. Or ${howToRefill([table], selection)}`,
    });
  }
}

/** A table of the same name is another one, whose rows the target does not have; what the old one missed nobody can tell. */
export function requireSameTables(copied: ReadonlyMap<string, TableState>, selection: Selection): void {
  const replaced = selection.tables.filter(({ source }) => {
    const state = copied.get(tableKey(source.schema, source.name));
    return state !== undefined && state.oid !== source.oid;
  });
  if (replaced.length > 0) throw tablesReplaced(replaced, selection);
}

export function tablesReplaced(replaced: readonly ReplicatedTable[], selection: Selection): ErserverError {
  const labels = tableLabels(replaced.map(({ source }) => source));
  return new ErserverError(
    "ERS-505",
    `${labels} on the source ${replaced.length === 1 ? "is not the table that was" : "are not the tables that were"} copied: dropped and made anew, or renamed`,
    {
      subject: labels,
      remedy: `If tables were renamed, give them their names back: nothing is lost then. Or ${howToRefill(replaced, selection)}`,
    },
  );
}

function howToRefill(tables: readonly ReplicatedTable[], selection: Selection): string {
  if (tables.length === selection.tables.length)
    return "start over for this target: erserver drop, empty its tables, erserver run.";
  const labels = (names: readonly { schema: string; name: string }[]): string =>
    [...new Set(names.map(({ schema, name }) => tableLabel(schema, name)))].join(", ");
  return `fill again what changed: put ${labels(tables.map(({ source }) => source))} under tables.exclude, erserver sync, TRUNCATE ${labels(tables.map(({ target }) => target))} on the target, take it out of there, erserver run.`;
}

/** Tables that joined the configuration are this pipeline's from now on, and to be copied. */
export async function addTableStates(store: PipelineStore, { tables }: SelectedTables): Promise<void> {
  await store.addTables(tables.map((table) => ({ ...table.source, ...shapeOf(table) })));
}

/** Tables that left the configuration, once they are published no more; their rows stay. */
export async function forgetTableStates(store: PipelineStore, { tables }: SelectedTables): Promise<void> {
  const known = await store.tableStates();
  const wanted = new Set(tables.map(({ source }) => tableKey(source.schema, source.name)));
  const gone = known.filter((table) => !wanted.has(tableKey(table.schema, table.name)));
  if (gone.length > 0) await store.forgetTables(gone);
}
