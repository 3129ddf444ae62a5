import {
  captureTables,
  dropCaptureIfUnused,
  forgetIfRestored,
  otherConsumers,
  readKnown,
  readRegisteredTables,
  type RegisteredTable,
  releaseUnwanted,
  type TableToCapture,
  unregisterTable,
} from "../capture/trigger/captured-tables.ts";
import { captureExists, forgetConsumer, readConsumer } from "../capture/trigger/consumers.ts";
import { LogCleaner } from "../capture/trigger/log-cleaner.ts";
import { describeConninfo } from "../config/conninfo.ts";
import { exactTable } from "../config/table-pattern.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { readSelection } from "../pipeline/read-selection.ts";
import { tablesToCapture } from "../pipeline/trigger-tables.ts";
import { oneAtATime } from "../postgres/advisory-lock.ts";
import { type CatalogTable, tableLabel } from "../postgres/catalog.ts";
import type { ControlSession } from "../postgres/connect.ts";
import { requirePrivileges } from "../postgres/privileges.ts";
import { readSourceFacts } from "../postgres/server-facts.ts";
import { slotNameFor } from "../quote/slot-name.ts";
import { migrate } from "../store/migrate.ts";
import { type Database, inDatabase, requireMaster } from "./database.ts";
import { namedColumn, namedTable, registeredColumn } from "./named-table.ts";
import { narrow, type Registered, widen } from "./registration.ts";

/** Makes what the master needs; false when it was there. */
export async function masterInit(master: Database): Promise<boolean> {
  return inDatabase(master, "source", async (session) => {
    const made = await migrate(session, describeConninfo(master.conninfo), "source");
    await forgetIfRestored(session);
    return made.length > 0;
  });
}

export interface TableRequest {
  /** As somebody calls it. */
  readonly table: string;
  /** Column mode; without it all columns. */
  readonly column?: string | undefined;
  /** Take a table without a key, to be replaced whole. */
  readonly fullRefresh?: boolean;
}

export interface TableResult {
  /** `schema.table`, quoted where needed. */
  readonly label: string;
  readonly how: Registered;
  /** What is registered now; null for all columns. */
  readonly columns: readonly string[] | null;
  /** It has no key, and is replaced whole. */
  readonly whole: boolean;
}

/** Has changes of a table recorded from now on; with a column, those of rows whose column changes, and whatever comes and goes. */
export async function masterAddTable(master: Database, request: TableRequest): Promise<TableResult> {
  return inDatabase(master, "source", async (session) => {
    await requireMaster(session, master);
    const { table, fullRefresh = false } = request;
    const facts = await readSourceFacts(session);
    const found = await namedTable(session, facts, table);
    const label = tableLabel(found.schema, found.name);
    const column = request.column === undefined ? undefined : namedColumn(found, request.column);
    const wish = await wishFor(session, found, fullRefresh);
    const whole = wish.key.length === 0;
    if (whole && column !== undefined) throw columnWithoutKey(label);

    const before = (await readKnown(session, [found.oid])).get(found.oid);
    const { columns, how } = widen(before, column);
    const isRegistered = before?.registered === true;
    await captureTables(session, [{ ...wish, columns, registered: true }]);
    return { label, columns, whole, how: isRegistered ? how : "added" };
  });
}

export interface RemovedTable {
  readonly label: string;
  /** The columns that stay registered; undefined when the table is gone. */
  readonly columns: readonly string[] | undefined;
  /** Targets of `erserver` that want the table all the same. */
  readonly wantedBy: readonly string[];
}

/** Undefined when it is not registered. */
export async function masterRemoveTable(
  master: Database,
  { table, column: columnText }: TableRequest,
): Promise<RemovedTable | undefined> {
  return inDatabase(master, "source", async (session) => {
    await requireMaster(session, master);
    const tables = await readRegisteredTables(session);
    const gone = tables.find(
      ({ dropped, schema, name }) => dropped && [name, tableLabel(schema, name)].includes(table),
    );
    if (gone !== undefined) {
      await oneAtATime(session, () => unregisterTable(session, gone.id));
      await releaseUnwanted(session);
      return { label: tableLabel(gone.schema, gone.name), columns: undefined, wantedBy: [] };
    }
    const found = await namedTable(session, await readSourceFacts(session), table);
    const registered = tables.find(({ oid }) => oid === found.oid);
    if (registered === undefined) return undefined;
    const column = columnText === undefined ? undefined : registeredColumn(found, registered, columnText);
    const label = tableLabel(found.schema, found.name);
    const left = narrow(registered, column);
    if (left !== undefined) {
      const wish = await wishFor(session, found, true);
      await captureTables(session, [{ ...wish, columns: left, registered: true }]);
      return { label, columns: left, wantedBy: [] };
    }
    return { label, columns: undefined, wantedBy: await unregister(session, found, registered) };
  });
}

/** With the registration column mode ends, too, for whoever wants the table all the same. */
async function unregister(
  session: ControlSession,
  table: CatalogTable,
  { id, columns }: RegisteredTable,
): Promise<string[]> {
  await oneAtATime(session, () => unregisterTable(session, id));
  const wantedBy = await otherConsumers(session, id);
  if (wantedBy.length > 0 && columns !== null) {
    const wish = await wishFor(session, table, true);
    await captureTables(session, [{ ...wish, columns: null }]);
  }
  await releaseUnwanted(session);
  return wantedBy;
}

/** Throws what keeps the table from being replicated. */
async function wishFor(
  session: ControlSession,
  table: CatalogTable,
  fullRefresh: boolean,
): Promise<TableToCapture> {
  const facts = await readSourceFacts(session);
  const withoutKey = fullRefresh ? "refresh" : "stop";
  const rules = {
    include: [exactTable(table)],
    exclude: [],
    publishViaPartitionRoot: true,
    withoutKey,
  } as const;
  const selection = await readSelection(session, facts, rules, "trigger");
  requirePrivileges({
    side: "source",
    role: facts.user,
    tables: selection.tables.map(({ source }) => source),
  });
  const [wish] = await tablesToCapture({ source: session, sourceFacts: facts, selection });
  return wish as TableToCapture;
}

/** Removes all that MasterInit and MasterAddTable have made; undefined when there was nothing. Throws ERS-414 while targets of `erserver` want it. */
export async function masterDrop(master: Database): Promise<{ tables: number } | undefined> {
  return inDatabase(master, "source", async (session) => {
    if (!(await captureExists(session))) return undefined;
    const others = await otherConsumers(session);
    if (others.length > 0) throw stillWanted(others, describeConninfo(master.conninfo));
    await session.query(
      "update erserver.captured_table set registered = false; delete from erserver.consumer",
    );
    const tables = await releaseUnwanted(session);
    await dropCaptureIfUnused(session);
    return { tables };
  });
}

/** Forgets a slave that is not to come back: what was kept for it is kept no longer. `others` are the other ones that the master knows. */
export async function masterForget(
  master: Database,
  slave: string,
): Promise<{ readonly known: boolean; readonly others: readonly string[] }> {
  return inDatabase(master, "source", async (session) => {
    await requireMaster(session, master);
    const consumer = slotNameFor(slave);
    const names = await consumerNames(session);
    const others = names.filter((name) => name !== slave);
    if ((await readConsumer(session, consumer)) === undefined) return { known: false, others };
    if ((await otherConsumers(session)).includes(slave))
      throw stillWanted([slave], describeConninfo(master.conninfo));
    await forgetConsumer(session, consumer);
    await new LogCleaner(session).clean((await readRegisteredTables(session)).map(({ id }) => id));
    return { known: true, others };
  });
}

async function consumerNames(session: ControlSession): Promise<string[]> {
  const rows = await session.query<{ name: string }>(
    "select coalesce(name, pipeline) as name from erserver.consumer order by 1",
  );
  return rows.map(({ name }) => name);
}

function columnWithoutKey(label: string): ErserverError {
  return new ErserverError(
    "ERS-107",
    `${label} has no key and is replaced whole, whichever of its columns has changed`,
    { subject: label, remedy: `Add it without a column, on both sides; or give ${label} a primary key.` },
  );
}

function stillWanted(names: readonly string[], where: string): ErserverError {
  return new ErserverError(
    "ERS-414",
    `${where}: ${names.length === 1 ? "target" : "targets"} ${names.join(", ")} of an erserver configuration ${names.length === 1 ? "gets its" : "get their"} changes from here`,
    {
      subject: names.join(", "),
      remedy: `Remove ${names.length === 1 ? "it" : "them"} first: ${names.map((name) => `erserver drop --target ${name}`).join(", ")}.`,
    },
  );
}
