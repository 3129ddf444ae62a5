import { describeConninfo } from "../config/conninfo.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { SQLSTATE } from "../errors/sqlstate.ts";
import { type Problem, triggersFire } from "../pipeline/limits.ts";
import { isServed } from "../pipeline/sides.ts";
import { oneAtATime, tryLock } from "../postgres/advisory-lock.ts";
import { type CatalogTable, tableLabel } from "../postgres/catalog.ts";
import type { ControlSession } from "../postgres/connect.ts";
import { sqlStateOf } from "../postgres/failures.ts";
import { requirePrivileges } from "../postgres/privileges.ts";
import { readServerFacts } from "../postgres/server-facts.ts";
import { migrate, schemaExists } from "../store/migrate.ts";
import { dropSchemaIfUnused, PipelineStore } from "../store/pipeline-store.ts";
import { type Database, inDatabase, requireSlave } from "./database.ts";
import type { RemovedTable, TableRequest, TableResult } from "./master.ts";
import { namedColumn, namedTable, registeredColumn } from "./named-table.ts";
import { narrow, type Registration, widen } from "./registration.ts";

/** Makes what the slave needs; `made` is false when it was there. */
export async function slaveInit(
  slave: Database,
): Promise<{ readonly made: boolean; readonly problems: readonly Problem[] }> {
  return inDatabase(slave, "target", async (session) => {
    const made = await migrate(session, describeConninfo(slave.conninfo), "target");
    const facts = await readServerFacts(session);
    const problems = (await mayBeReplica(session)) ? [] : [triggersFire(facts)];
    return { made: made.length > 0, problems };
  });
}

/** As `becomeReplica`, without becoming one. */
async function mayBeReplica(session: ControlSession): Promise<boolean> {
  try {
    await session.query("begin; set local session_replication_role = replica; commit");
    return true;
  } catch (error) {
    await session.query("rollback");
    if (sqlStateOf(error) === SQLSTATE.insufficientPrivilege) return false;
    throw error;
  }
}

/** Registers a table that is to be as on the master. */
export async function slaveAddTable(
  slave: Database,
  request: TableRequest,
): Promise<Pick<TableResult, "label" | "how" | "columns">> {
  return inDatabase(slave, "target", async (session) => {
    await requireSlave(session, slave);
    const facts = await readServerFacts(session);
    const table = await namedTable(session, facts, request.table);
    const { schema, name } = table;
    const column = request.column === undefined ? undefined : namedColumn(table, request.column);
    requirePrivileges({ side: "target", role: facts.user, tables: [table] });
    return oneAtATime(session, async () => {
      const before = (await readSlaveTables(session)).find(
        (one) => one.schema === schema && one.name === name,
      );
      const { columns, how } = widen(before, column);
      await writeSlaveTable(session, { schema, name, columns });
      return { label: tableLabel(schema, name), how, columns };
    });
  });
}

/** Undefined when it is not registered. The table's rows stay. */
export async function slaveRemoveTable(
  slave: Database,
  request: TableRequest,
): Promise<Omit<RemovedTable, "wantedBy"> | undefined> {
  return inDatabase(slave, "target", async (session) => {
    await requireSlave(session, slave);
    const table = await tableOrWhatWas(session, request.table);
    const { schema, name } = table;
    return oneAtATime(session, async () => {
      const registered = (await readSlaveTables(session)).find(
        (one) => one.schema === schema && one.name === name,
      );
      if (registered === undefined) return undefined;
      const { column } = request;
      const columns = narrow(
        registered,
        column === undefined ? undefined : registeredColumn(table, registered, column),
      );
      if (columns === undefined) await removeSlaveTable(session, registered);
      else await writeSlaveTable(session, { schema, name, columns });
      return { label: tableLabel(schema, name), columns };
    });
  });
}

/** Registered again it is compared again: somebody may have filled it anew meanwhile. */
async function removeSlaveTable(session: ControlSession, { schema, name }: Registration): Promise<void> {
  const pipelines = await session.query<{ name: string }>(
    "select name from erserver.pipeline where registered_only",
  );
  for (const pipeline of pipelines)
    if (!(await isServed(session, pipeline.name)))
      await new PipelineStore(session, pipeline.name).forgetTables([{ schema, name }]);
  await session.query("delete from erserver.slave_table where schema_name = $1 and table_name = $2", [
    schema,
    name,
  ]);
}

/** Dropped or renamed since, it is registered still. */
async function tableOrWhatWas(
  session: ControlSession,
  text: string,
): Promise<Pick<CatalogTable, "schema" | "name" | "columns">> {
  try {
    return await namedTable(session, await readServerFacts(session), text);
  } catch (error) {
    const was = (await readSlaveTables(session)).find(({ schema, name }) =>
      [name, tableLabel(schema, name)].includes(text),
    );
    if (was === undefined) throw error;
    return { ...was, columns: [] };
  }
}

export async function readSlaveTables(session: ControlSession): Promise<Registration[]> {
  const rows = await session.query<{ schema: string; name: string; columns: string | null }>(
    "select schema_name as schema, table_name as name, pg_catalog.to_json(columns)::text as columns from erserver.slave_table order by schema_name, table_name",
  );
  return rows.map(({ columns, ...table }) => ({
    ...table,
    columns: columns === null ? null : (JSON.parse(columns) as string[]),
  }));
}

async function writeSlaveTable(
  session: ControlSession,
  { schema, name, columns }: Registration,
): Promise<void> {
  await session.query(
    `insert into erserver.slave_table (schema_name, table_name, columns) values ($1, $2, $3)
     on conflict (schema_name, table_name) do update set columns = excluded.columns`,
    [schema, name, columns],
  );
}

export interface DroppedSlave {
  /** As the master knows it, which still keeps changes for it. */
  readonly names: readonly string[];
  /** Targets of `erserver` that end here, and keep schema `erserver`. */
  readonly others: readonly string[];
}

/** Removes all that SlaveInit, SlaveAddTable and Replicate have made; undefined when there was nothing. Tables and rows stay. */
export async function slaveDrop(slave: Database): Promise<DroppedSlave | undefined> {
  return inDatabase(slave, "target", async (session) => {
    if (!(await schemaExists(session))) return undefined;
    await migrate(session, describeConninfo(slave.conninfo), "target");
    const pipelines = await session.query<{ name: string; own: string }>(
      "select name, registered_only::text as own from erserver.pipeline order by name",
    );
    const names = pipelines.filter(({ own }) => own === "true").map(({ name }) => name);
    const others = pipelines.filter(({ own }) => own !== "true").map(({ name }) => name);
    // Kept until the session ends.
    for (const name of names) if (!(await tryLock(session, "apply", name))) throw served(name);
    await oneAtATime(session, async () => {
      await session.query("delete from erserver.slave_table");
      for (const name of names) await new PipelineStore(session, name).unregister();
      if (others.length === 0) await dropSchemaIfUnused(session);
    });
    return { names, others };
  });
}

function served(name: string): ErserverError {
  return new ErserverError("ERS-508", `a replicator serves ${name}`, {
    subject: name,
    remedy: "Stop Replicate, or erserver run, first.",
  });
}
