import { openTargetSession, type TargetSession } from "../apply/target-session.ts";
import { planTable, type SourceType, tableAbsent, type TablePlan } from "../apply/table-plan.ts";
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
import { requirePrivileges } from "../postgres/privileges.ts";
import type { CaptureKind, ReplicatedTable, Selection } from "../postgres/selection.ts";
import {
  readServerFacts,
  readSourceFacts,
  requireUsableServer,
  type ServerFacts,
  type SourceFacts,
} from "../postgres/server-facts.ts";
import { OLDEST_SOURCE_MAJOR, OLDEST_TARGET_MAJOR } from "../postgres/server-version.ts";
import { type SlotName, slotNameFor } from "../quote/slot-name.ts";
import type { ChangeSource } from "./change-source.ts";
import { type PipelineContext, sessionOptions } from "./context.ts";
import {
  addTableStates,
  copiedTables,
  forgetTableStates,
  requireOwnTables,
  requireSameShape,
} from "./table-states.ts";
import { recordFailure } from "./failure-record.ts";
import { chooseCapture } from "./choose-capture.ts";
import { limitsOf, type Problem } from "./limits.ts";
import { relationOf } from "./relation-of.ts";
import { readSelection } from "./read-selection.ts";
import type { PreparedSource, SourceInput } from "./source-input.ts";
import { prepareTriggers } from "./trigger-source.ts";
import { prepareWal } from "./wal-source.ts";
import { migrate, requireMayMigrate, usableSchemaExists } from "../store/migrate.ts";
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
  /** Its name on the source. */
  readonly slot: SlotName;
  readonly changes: ChangeSource;
  readonly selection: Selection;
  readonly targetTables: ReadonlyMap<string, CatalogTable>;
  /** Undefined until the slot has been made. */
  readonly progress: Progress | undefined;
  /** What the operator should know. */
  readonly problems: readonly Problem[];
  /** What was created or changed on the way, for people. */
  readonly made: readonly string[];
}

/** Both sides connected and looked at, and nothing changed yet: the session on the target holds the pipeline's lock. */
interface Checked extends AsyncDisposable {
  readonly input: SourceInput;
  readonly session: TargetSession;
  readonly capture: CaptureKind;
  readonly prepared: PreparedSource;
  /** What the operator should know. */
  readonly problems: readonly Problem[];
}

/**
 * Connects both sides, checks everything that can be checked, and only then changes anything: schema and
 * registration on the target, publications on the source. The order keeps a second replicator out: the target's
 * lock comes before the first change.
 */
export async function openPipeline(context: PipelineContext): Promise<OpenPipeline> {
  const { config, target } = context;
  const checked = await checkSides(context, (store, error) => recordFailure(store, context, error));
  const { input, session, capture, prepared } = checked;
  const { source, sourceFacts, targetFacts, control, store, slot, selection, targetTables } = input;
  try {
    const migrated = await migrate(control, describeConninfo(target.conninfo), "target");
    const registration = await oneAtATime(control, async () => {
      requireOwnTables(await store.tablesOfOthers(sourceFacts), selection);
      const registered = await store.register(sourceFacts, slot, capture, config.tables.registeredOnly);
      await addTableStates(store, selection);
      return registered;
    });
    const { changes, made, problems } = await prepared.make();
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
      changes,
      selection,
      targetTables,
      progress: input.progress,
      problems: [...checked.problems, ...problems],
      made: [
        ...migrated.map((name) => `schema erserver on the target: ${name}`),
        ...(input.known === undefined ? [`target ${target.name} registered`] : []),
        ...made,
      ],
      [Symbol.asyncDispose]: () => checked[Symbol.asyncDispose](),
    };
  } catch (error) {
    await recordFailure(store, context, toErserverError(error));
    await checked[Symbol.asyncDispose]();
    throw error;
  }
}

/** The first half of `openPipeline`: throws what keeps the pipeline from running, returns what an operator should know. */
export async function checkPipeline(context: PipelineContext): Promise<readonly Problem[]> {
  await using checked = await checkSides(context, async () => {});
  return checked.problems;
}

/** `onFailure` is called while the pipeline's lock is still held. */
async function checkSides(
  context: PipelineContext,
  onFailure: (store: PipelineStore, error: ErserverError) => Promise<void>,
): Promise<Checked> {
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
    const [sourceFacts, inOne] = await Promise.all([readSourceFacts(source), inOneDatabase(source, control)]);
    requireUsableServer(sourceFacts, describeConninfo(config.source), OLDEST_SOURCE_MAJOR);
    if (inOne) {
      throw new ErserverError(
        "ERS-103",
        `target ${target.name} is the same database as the source: ${where}`,
        {
          subject: target.name,
          remedy: `Correct \`source\` or \`targets.${target.name}\` in the configuration: they lead to one database by different names.`,
        },
      );
    }
    const there = await usableSchemaExists(control, where);
    if (!there) await requireMayMigrate(control, where, "target");
    const known = there ? await store.registration() : undefined;
    if (known !== undefined) requireSameSource(known, sourceFacts, target.name);
    const { capture, reason } = await chooseCapture(context, sourceFacts, known);
    const selection = await readSelection(source, sourceFacts, config.tables, capture);
    const targetTables = tablesByKey(await readTables(control, targetFacts.version));
    checkTargetTables(selection.tables, targetTables, config.tables.missingColumn);
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
    const copied = copiedTables(known === undefined ? [] : await store.tableStates());
    requireSameShape(copied, selection);
    const progress = known === undefined ? undefined : await store.progress();
    const input: SourceInput = {
      context,
      source,
      sourceFacts,
      control,
      targetFacts,
      store,
      slot,
      selection,
      targetTables,
      known,
      progress,
      copied,
      replicaRole: session.replicaRole,
    };
    const prepared = await (capture === "wal" ? prepareWal(input) : prepareTriggers(input));

    return {
      input,
      session,
      capture,
      prepared,
      problems: [
        ...(reason === undefined ? [] : [reason]),
        ...selection.problems,
        ...limitsOf({ source: sourceFacts, target: targetFacts, replicaRole: session.replicaRole }),
      ],
      [Symbol.asyncDispose]: close,
    };
  } catch (error) {
    if (locked !== undefined) await onFailure(locked, toErserverError(error));
    await close();
    throw error;
  }
}

/** Every table must be writable as it is described now; all that are absent are named at once. */
export function checkTargetTables(
  tables: readonly ReplicatedTable[],
  targetTables: ReadonlyMap<string, CatalogTable>,
  missingColumn: Config["tables"]["missingColumn"],
): TablePlan[] {
  const absent = new Set(
    tables
      .filter(({ target }) => !targetTables.has(tableKey(target.schema, target.name)))
      .map(({ target }) => tableLabel(target.schema, target.name)),
  );
  if (absent.size > 0) throw tableAbsent(...absent);
  const sourceTypes = typesOf(tables.map(({ source }) => source));
  return tables.map((table) =>
    planTable({
      relation: relationOf(table),
      table,
      target: targetTables.get(tableKey(table.target.schema, table.target.name)),
      sourceTypes,
      definitionOf: (name) => definitionOf(table.source, name),
      missingColumn,
    }),
  );
}

/** The types of these tables' columns, by OID. */
export function typesOf(tables: readonly CatalogTable[]): Map<number, SourceType> {
  return new Map(tables.flatMap((table) => table.columns.map((column) => [column.typeOid, column] as const)));
}
