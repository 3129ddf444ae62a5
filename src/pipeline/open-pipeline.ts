import { openTargetSession, type TargetSession } from "../apply/target-session.ts";
import { planTable, type SourceType, tableAbsent } from "../apply/table-plan.ts";
import { formatLsn, type Lsn } from "../change/lsn.ts";
import type { Relation } from "../change/relation.ts";
import type { Config } from "../config/config.ts";
import { describeConninfo } from "../config/conninfo.ts";
import { ErserverError, toErserverError } from "../errors/erserver-error.ts";
import {
  type CatalogTable,
  definitionOf,
  readTables,
  tableKey,
  tableLabel,
  tablesByKey,
} from "../postgres/catalog.ts";
import { inOneDatabase, oneAtATime } from "../postgres/advisory-lock.ts";
import { connectControl, type ControlSession } from "../postgres/connect.ts";
import {
  changePublications,
  planPublications,
  publicationFingerprint,
  publicationNames,
  type PublicationNames,
} from "../postgres/publications.ts";
import { requirePrivileges } from "../postgres/privileges.ts";
import { readRowFilters } from "../postgres/row-filters.ts";
import { type ReplicatedTable, type Selection, requireTables, selectTables } from "../postgres/selection.ts";
import { readSlot, requireFreeSlot, type Slot, slotLost, slotMissing, slotTaken } from "../postgres/slots.ts";
import {
  readServerFacts,
  readSourceFacts,
  requireUsableServer,
  requireUsableSource,
  type ServerFacts,
  type SourceFacts,
} from "../postgres/server-facts.ts";
import { OLDEST_TARGET_MAJOR } from "../postgres/server-version.ts";
import { type SlotName, slotNameFor } from "../quote/slot-name.ts";
import { connectReplication } from "./connect-replication.ts";
import { type PipelineContext, sessionOptions } from "./context.ts";
import {
  addTableStates,
  copiedTables,
  forgetTableStates,
  publishedFor,
  requireOwnTables,
  requireSameShape,
  requireSameTables,
} from "./table-states.ts";
import { recordFailure } from "./failure-record.ts";
import { limitsOf, type Problem } from "./limits.ts";
import { migrate, usableSchemaExists } from "../store/migrate.ts";
import {
  PipelineStore,
  requireSameSource,
  type Progress,
  type Registration,
} from "../store/pipeline-store.ts";

/** A pipeline with both sides connected, checked, and prepared: the session on the target holds the pipeline's lock. */
export interface OpenPipeline extends AsyncDisposable {
  readonly source: ControlSession;
  readonly sourceFacts: SourceFacts;
  readonly targetFacts: ServerFacts;
  readonly control: ControlSession;
  readonly session: TargetSession;
  readonly store: PipelineStore;
  readonly registration: Registration;
  readonly slot: SlotName;
  readonly publications: PublicationNames;
  /** As they were left: see `publicationFingerprint`. */
  readonly published: string;
  readonly selection: Selection;
  readonly targetTables: ReadonlyMap<string, CatalogTable>;
  /** Undefined until the slot has been made. */
  readonly progress: Progress | undefined;
  /** What the operator should know. */
  readonly problems: readonly Problem[];
  /** What was created or changed on the way, for people. */
  readonly changes: readonly string[];
}

/**
 * Connects both sides, checks everything that can be checked, and only then changes anything: schema and
 * registration on the target, publications on the source. The order keeps a second replicator out: the target's
 * lock comes before the first change.
 */
export async function openPipeline(context: PipelineContext): Promise<OpenPipeline> {
  const { config, target } = context;
  const opened: { close(): Promise<void> | void }[] = [];
  const close = async (): Promise<void> => {
    for (const one of opened.toReversed()) await one.close();
  };
  const keep = <T>(value: T, closeIt: (value: T) => Promise<void> | void): T => {
    opened.push({ close: () => closeIt(value) });
    return value;
  };
  const options = sessionOptions(context);
  /** Set once the target's lock is ours. */
  let locked: PipelineStore | undefined;
  try {
    const settings = {
      // Whatever the server's default: a crash must not take the registration back while the slot that it names stays.
      synchronous_commit: "local",
      // Other pipelines wait for our transactions: not for one whose end a broken connection has kept from the server.
      idle_in_transaction_session_timeout: String(config.timeoutMs),
    };
    const control = keep(await connectControl(target.conninfo, { ...options, settings }), (session) =>
      session.end(),
    );
    const store = new PipelineStore(control, target.name);
    const where = describeConninfo(target.conninfo);
    const targetFacts = await readServerFacts(control);
    requireUsableServer(targetFacts, where, OLDEST_TARGET_MAJOR);
    const session = keep(
      await openTargetSession({
        conninfo: target.conninfo,
        pipeline: target.name,
        version: targetFacts.version,
        ownBackends: context.ownBackends.target,
        ...options,
      }),
      ({ connection }) => connection.end(),
    );
    // Whatever an earlier session of ours still held, it holds no more.
    context.ownBackends.target.clear();
    context.ownBackends.target.add(session.connection.backendPid);
    locked = store;

    const source = keep(await connectControl(config.source, options), (opening) => opening.end());
    const sourceFacts = await readSourceFacts(source);
    requireUsableSource(sourceFacts, describeConninfo(config.source));
    if (await inOneDatabase(source, control)) {
      throw new ErserverError(
        "ERS-103",
        `target ${target.name} is the same database as the source: ${where}`,
        {
          subject: target.name,
          remedy: `Correct \`source\` or \`targets.${target.name}\` in the configuration: they lead to one database by different names.`,
        },
      );
    }
    // A managed host lets roles replicate that the catalogue does not mark so.
    if (!sourceFacts.mayReplicate) await (await connectReplication(context)).end();
    const selection = await select(config, source, sourceFacts);
    const targetTables = tablesByKey(await readTables(control, targetFacts.version));
    checkTargetTables(selection, targetTables, config);
    requirePrivileges({
      side: "source",
      role: sourceFacts.user,
      tables: selection.tables.map((table) => table.source),
    });
    requirePrivileges({
      side: "target",
      role: targetFacts.user,
      tables: selection.tables.flatMap(
        (table) => targetTables.get(tableKey(table.target.schema, table.target.name)) ?? [],
      ),
    });

    const slot = slotNameFor(target.name);
    const publications = publicationNames(slot);
    const there = await usableSchemaExists(control, where);
    const known = there ? await store.registration() : undefined;
    if (known !== undefined) requireSameSource(known, sourceFacts, target.name);
    const existing = await readSlot(source, sourceFacts.version, slot);
    if (known === undefined && existing !== undefined)
      throw slotTaken(
        slot,
        `it exists already (plugin ${existing.plugin}, database ${existing.database}) and this target knows nothing of it`,
      );
    const copied = copiedTables(known === undefined ? [] : await store.tableStates());
    requireSameShape(copied, selection);
    const progress = known === undefined ? undefined : await store.progress();
    if (progress !== undefined) checkSlot(existing, slot, sourceFacts, progress.lsn);
    else if (existing === undefined) await requireFreeSlot(source, slot);
    requireSameTables(copied, selection);
    const publishing = await planPublications(source, {
      names: publications,
      published: selection.published,
      publishViaPartitionRoot: config.tables.publishViaPartitionRoot,
      sourceVersion: sourceFacts.version,
      ours: known !== undefined,
      followed: progress === undefined ? undefined : publishedFor(copied, selection),
    });

    const changes = await migrate(control, where, "target");
    const registration = await oneAtATime(control, async () => {
      requireOwnTables(await store.tablesOfOthers(sourceFacts), selection);
      const registered = await store.register(sourceFacts, slot);
      await addTableStates(store, selection);
      return registered;
    });
    await changePublications(source, publishing);
    const published = await publicationFingerprint(source, publications);
    await forgetTableStates(store, selection);
    return {
      source,
      sourceFacts,
      targetFacts,
      control,
      session,
      store,
      registration,
      slot,
      publications,
      published,
      selection,
      targetTables,
      progress,
      problems: [
        ...selection.problems,
        ...limitsOf({ source: sourceFacts, target: targetFacts, replicaRole: session.replicaRole }),
      ],
      changes: [
        ...changes.map((name) => `schema erserver on the target: ${name}`),
        ...(known === undefined ? [`target ${target.name} registered`] : []),
        ...publishing.map(({ name }) => `publication ${name} on the source`),
      ],
      [Symbol.asyncDispose]: close,
    };
  } catch (error) {
    if (locked !== undefined) await recordFailure(locked, context, toErserverError(error));
    await close();
    throw error;
  }
}

export async function select(config: Config, source: ControlSession, facts: SourceFacts): Promise<Selection> {
  const selection = selectTables(await readTables(source, facts.version), config.tables, facts.version);
  const blocking = selection.problems.filter((problem) => problem.blocks);
  const [first] = blocking;
  if (first !== undefined) {
    throw new ErserverError(first.code, blocking.map((problem) => problem.message).join("; "), {
      subject: first.table,
      remedy: [...new Set(blocking.map((problem) => problem.remedy))].join(" "),
    });
  }
  requireTables(selection);
  return readRowFilters(source, selection);
}

/** Every table of the selection must be writable as it is described now; all that are absent are named at once. */
export function checkTargetTables(
  selection: Selection,
  targetTables: ReadonlyMap<string, CatalogTable>,
  config: Config,
): void {
  const absent = new Set(
    selection.tables
      .filter(({ target }) => !targetTables.has(tableKey(target.schema, target.name)))
      .map(({ target }) => tableLabel(target.schema, target.name)),
  );
  if (absent.size > 0) throw tableAbsent(...absent);
  const sourceTypes = typesOf(selection.tables.map(({ source }) => source));
  for (const table of selection.tables) {
    planTable({
      relation: relationOf(table),
      table,
      target: targetTables.get(tableKey(table.target.schema, table.target.name)),
      sourceTypes,
      definitionOf: (name) => definitionOf(table.source, name),
      missingColumn: config.tables.missingColumn,
    });
  }
}

/** The types of these tables' columns, by OID. */
export function typesOf(tables: readonly CatalogTable[]): Map<number, SourceType> {
  return new Map(tables.flatMap((table) => table.columns.map((column) => [column.typeOid, column] as const)));
}

/** The relation as the stream will describe it, from the catalogue. */
function relationOf(table: ReplicatedTable): Relation {
  const { source } = table;
  return {
    id: source.oid,
    schema: source.schema,
    name: source.name,
    replicaIdentity: source.replicaIdentity,
    columns: source.columns
      .filter((column) => table.columns.includes(column.name))
      .map((column) => ({
        name: column.name,
        typeOid: column.typeOid,
        typeModifier: column.typeModifier,
        partOfKey: source.replicaIdentity === "full" || source.identityColumns.includes(column.name),
      })),
  };
}

/** Whether the slot can still give everything behind the target's position. */
function checkSlot(slot: Slot | undefined, name: string, source: SourceFacts, progressLsn: Lsn): void {
  if (slot === undefined) throw slotMissing(name);
  if (slot.plugin !== "pgoutput" || slot.database !== source.database) {
    throw slotTaken(name, `it uses plugin ${slot.plugin} in database ${slot.database}`);
  }
  if (slot.walStatus === "lost") throw slotLost(name);
  if (slot.confirmedFlushLsn !== undefined && slot.confirmedFlushLsn > progressLsn) {
    throw new ErserverError(
      "ERS-504",
      `replication slot "${name}" is at ${formatLsn(slot.confirmedFlushLsn)}, the target at ${formatLsn(progressLsn)}: the changes between cannot be had any more (was the slot made anew, or the target restored from a backup?)`,
      { subject: name, remedy: "Start over for this target: erserver drop, empty its tables, erserver run." },
    );
  }
}
