import type { TableCopies } from "../apply/applier.ts";
import { planTable, type SourceType, type TablePlan } from "../apply/table-plan.ts";
import { type Lsn, maxLsn, ZERO_LSN } from "../change/lsn.ts";
import type { Relation } from "../change/relation.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import {
  type CatalogTable,
  definitionOf,
  FIRST_UNFIXED_OID,
  readTables,
  tableKey,
  tableLabel,
  tablesByKey,
} from "../postgres/catalog.ts";
import type { ReplicatedTable } from "../postgres/selection.ts";
import type { PipelineContext } from "./context.ts";
import { type OpenPipeline, typesOf } from "./open-pipeline.ts";
import { readSelection } from "./read-selection.ts";
import type { TableState } from "../store/pipeline-store.ts";
import { tablesReplaced } from "./table-states.ts";

/** Makes table plans, from the catalogues as they were at the start until the stream describes a table anew. */
export class Planner {
  readonly #context: PipelineContext;
  readonly #open: OpenPipeline;
  readonly #binary: boolean;
  #sourceTables: ReadonlyMap<string, CatalogTable>;
  #sourceTypes: ReadonlyMap<number, SourceType>;
  readonly #byOid: ReadonlyMap<number, ReplicatedTable>;
  readonly #byName: ReadonlyMap<string, ReplicatedTable>;
  readonly #seen = new Set<number>();
  #targetTables: ReadonlyMap<string, CatalogTable>;
  readonly #copyLsns: ReadonlyMap<string, Lsn>;

  constructor(context: PipelineContext, open: OpenPipeline, binary: boolean, states: readonly TableState[]) {
    this.#context = context;
    this.#open = open;
    this.#binary = binary;
    this.#targetTables = open.targetTables;
    const sources = open.selection.tables.map(({ source }) => source);
    this.#sourceTables = tablesByKey(sources);
    this.#sourceTypes = typesOf(sources);
    const { tables } = open.selection;
    this.#byOid = new Map(tables.map((table) => [table.source.oid, table]));
    this.#byName = new Map(tables.map((table) => [tableKey(table.source.schema, table.source.name), table]));
    this.#copyLsns = new Map(
      states.flatMap((state) =>
        state.copyLsn === undefined ? [] : [[tableKey(state.schema, state.name), state.copyLsn]],
      ),
    );
  }

  get copies(): TableCopies {
    return {
      lsnOf: (relation) => this.#copyLsns.get(this.#keyOf(relation)) ?? ZERO_LSN,
      newestLsn: [...this.#copyLsns.values()].reduce(maxLsn, ZERO_LSN),
    };
  }

  /** @param inProgress a transaction describes it that has not committed: what only that knows of a table nobody can look up. */
  async plan(relation: Relation, inProgress: boolean): Promise<TablePlan> {
    if (this.#seen.has(relation.id)) await this.#readTargetAgain();
    this.#seen.add(relation.id);
    await this.#requireCopied(relation, inProgress);
    if (
      relation.columns.some(({ typeOid }) => typeOid >= FIRST_UNFIXED_OID && !this.#sourceTypes.has(typeOid))
    )
      await this.#readSourceAgain();
    let plan: TablePlan;
    try {
      plan = this.#planNow(relation);
    } catch (error) {
      if (!(error instanceof ErserverError)) throw error;
      await this.#readTargetAgain();
      // For the remedy, which says how the column is made there now.
      if (error.code === "ERS-402") await this.#readSourceAgain();
      plan = this.#planNow(relation);
    }
    const unsafe = this.#binary ? plan.written.find((column) => !column.target.binarySafe) : undefined;
    if (unsafe !== undefined)
      throw reshaped(
        `${plan.label} has a new column "${unsafe.target.name}", whose values cannot travel as bytes`,
        plan.label,
      );
    return plan;
  }

  /**
   * A partition that was attached after the start may have rows that no change has brought: it is copied first. A table
   * that was renamed, and not back again since, may have to be refused.
   */
  async #requireCopied({ id, schema, name }: Relation, inProgress: boolean): Promise<void> {
    const known = this.#byOid.get(id);
    const namesake = this.#byName.get(tableKey(schema, name));
    if (known !== undefined && known === namesake) return;
    // What had the name before the copy is left out by `copy_lsn`; what has got it since is not what was copied.
    if (known === undefined && namesake !== undefined) throw tablesReplaced([namesake], this.#open.selection);
    if (inProgress) {
      const label = tableLabel(schema, name);
      throw reshaped(`table ${label} was made or renamed since the start`, label);
    }
    const { tables } = await readSelection(
      this.#open.source,
      this.#open.sourceFacts,
      this.#context.config.tables,
      this.#open.changes.kind,
    );
    const now = tables.find(({ source }) => source.oid === id)?.source;
    if (now === undefined || (now.schema === known?.source.schema && now.name === known.source.name)) return;
    const label = tableLabel(now.schema, now.name);
    throw known === undefined
      ? reshaped(`table ${label} has joined the replicated ones and is to be copied`, label)
      : reshaped(
          `table ${tableLabel(known.source.schema, known.source.name)} was renamed to ${label}`,
          label,
        );
  }

  /** A table that is renamed and back again between two looks is still the same. */
  #keyOf(relation: Relation): string {
    const { schema, name } = this.#byOid.get(relation.id)?.source ?? relation;
    return tableKey(schema, name);
  }

  #planNow(relation: Relation): TablePlan {
    const key = this.#keyOf(relation);
    // Attached after the start, and gone again or renamed since: it stands under the name that it had.
    const table = this.#byName.get(key) ?? {
      columns: relation.columns.map((column) => column.name),
      computed: [],
      columnList: false,
      sharedBy: 1,
      target: { schema: relation.schema, name: relation.name },
      publishes: "all" as const,
    };
    return planTable({
      relation,
      table,
      target: this.#targetTables.get(tableKey(table.target.schema, table.target.name)),
      sourceTypes: this.#sourceTypes,
      definitionOf: (name) => definitionOf(this.#sourceTables.get(key), name),
      missingColumn: this.#context.config.tables.missingColumn,
    });
  }

  async #readSourceAgain(): Promise<void> {
    const tables = await readTables(this.#open.source, this.#open.sourceFacts.version);
    this.#sourceTables = tablesByKey(tables);
    this.#sourceTypes = new Map([...this.#sourceTypes, ...typesOf(tables)]);
  }

  async #readTargetAgain(): Promise<void> {
    this.#targetTables = tablesByKey(await readTables(this.#open.control, this.#open.targetFacts.version));
  }
}

function reshaped(message: string, subject: string): ErserverError {
  return new ErserverError("ERS-509", message, {
    subject,
    remedy: "Nothing to do: the pipeline is opened anew by itself.",
  });
}
