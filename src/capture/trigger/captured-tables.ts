import { setTimeout as sleep } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { ErserverError } from "../../errors/erserver-error.ts";
import { SQLSTATE } from "../../errors/sqlstate.ts";
import { oneAtATime } from "../../postgres/advisory-lock.ts";
import { type CatalogColumn, type CatalogTable, tableKey, tableLabel } from "../../postgres/catalog.ts";
import type { ControlSession } from "../../postgres/connect.ts";
import { sqlStateOf } from "../../postgres/failures.ts";
import { quoteIdent, quoteQualified } from "../../quote/ident.ts";
import {
  type CaptureSpec,
  createFunctions,
  createLog,
  createTriggers,
  definitionOf,
  dropCapture,
  dropFunctions,
  type KeyColumn,
  logKey,
  logName,
  type RelationRole,
  triggerNames,
} from "./trigger-ddl.ts";

/** A relation that statements may name: the table itself, or a partition at any depth. */
export interface Relation {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  readonly role: RelationRole;
}

export interface TableToCapture {
  readonly table: CatalogTable;
  /** The table itself first. */
  readonly relations: readonly Relation[];
  /** Columns of `table` that name a row; without any the table is replaced whole. */
  readonly key: readonly string[];
  /** Column mode, or null for all columns; undefined leaves it as it is, and is null for a new one. */
  readonly columns?: readonly string[] | null;
  /** Asked for by itself: it stays when no target wants it. */
  readonly registered?: true;
}

/** A table whose changes are recorded. */
export interface CapturedTable {
  /** Number in erserver.captured_table. */
  readonly id: number;
  readonly oid: number;
  readonly key: readonly KeyColumn[];
  /** Partitions that have joined since the table began to be recorded, all of whose rows are recorded as changed now. */
  readonly joined: readonly Relation[];
}

/** A lock is waited for no longer than this, because whoever comes behind us waits as well. */
const LOCK_TIMEOUT_MS = 100;
const LOCK_ATTEMPTS = 50;
const LOCK_PAUSE_MS = 100;

interface Known {
  readonly id: number;
  readonly schema: string;
  readonly name: string;
  readonly key: readonly string[];
  readonly attributes: readonly number[];
  readonly relations: readonly number[];
  readonly columns: readonly string[] | null;
  readonly registered: boolean;
  readonly definition: string;
}

/**
 * Has the changes of these tables recorded from now on: every transaction that writes to one of them and has not ended yet, or begins
 * later, is. Does nothing for those of which it is so already. A table that has lost triggers is recorded anew, under another number:
 * what it missed nobody knows. Schema `erserver` must be there.
 */
export async function captureTables(
  session: ControlSession,
  wanted: readonly TableToCapture[],
): Promise<CapturedTable[]> {
  const { triggers, tables } = await oneAtATime(session, async () => {
    const there = await readTriggers(session, wanted);
    const known = await readKnown(
      session,
      wanted.map(({ table }) => table.oid),
    );
    const attributes = await readAttributes(session, wanted);
    const registered: Registered[] = [];
    for (const wish of wanted) {
      const { oid } = wish.table;
      const keyAttributes = keyOf(wish, attributes.get(oid) ?? []);
      registered.push(await register(session, wish, keyAttributes, known.get(oid), there));
    }
    return { triggers: there, tables: registered };
  });
  const captured: CapturedTable[] = [];
  for (const { wish, spec, known, widened } of tables) {
    for (const relation of untriggered(triggers, spec.id, wish.relations))
      await behindWriters(session, relation, createTriggers(spec.id, relation));
    if (widened) await recordWhole(session, spec, wish.relations);
    const joined =
      known === undefined ? [] : wish.relations.filter(({ oid }) => !known.relations.includes(oid));
    const { id, key } = spec;
    for (const relation of joined) await recordAllRows(session, spec, relation);
    // Not before: whoever is stopped in between records them again.
    if (joined.length > 0)
      await session.query("update erserver.captured_table set relations = $2 where id = $1", [
        id,
        wish.relations.map(({ oid }) => oid),
      ]);
    captured.push({ id, oid: wish.table.oid, key, joined });
  }
  return captured;
}

interface Registered {
  readonly wish: TableToCapture;
  readonly spec: CaptureSpec;
  readonly known: Known | undefined;
  /** It was recorded by column, and is to be recorded whole. */
  readonly widened: boolean;
}

/** Log and functions, which lock nothing of the user's. */
async function register(
  session: ControlSession,
  wish: TableToCapture,
  attributes: readonly KeyAttribute[],
  recorded: Known | undefined,
  triggers: Triggers,
): Promise<Registered> {
  const { table, key, relations } = wish;
  const known = await stillRecorded(session, wish, recorded, triggers);
  const numbers = attributes.map(({ number }) => number);
  if (known !== undefined && String(known.attributes) !== String(numbers)) throw keyChanged(table, key);
  const columns = wish.columns === undefined ? (known?.columns ?? null) : wish.columns;
  const registered = wish.registered === true || known?.registered === true;
  const id = known?.id ?? (await nextId(session));
  const widened = known !== undefined && known.columns !== null && columns === null;
  // Without one of its columns the function would fail, and the user's statement with it.
  const isThere = columns?.every((name) => table.columns.some((column) => column.name === name));
  const spec = {
    id,
    key: attributes.map(({ column }) => column),
    columns: isThere === true ? columns : null,
  };
  const definition = definitionOf(spec);
  const log = createLog(spec);
  if (known === undefined && log !== undefined) await session.query(log);
  if (known?.definition !== definition && !widened) await session.query(createFunctions(spec));
  const { schema, name } = table;
  // One that is widened stays on record as it was until all its rows are recorded.
  const as = widened ? known : { columns, definition };
  const now = {
    id,
    schema,
    name,
    key,
    attributes: numbers,
    columns: as.columns,
    registered,
    definition: as.definition,
  };
  const before = known === undefined ? undefined : { ...known, relations: undefined };
  // With thousands of tables a write for each would take long.
  if (!isDeepStrictEqual({ ...now, relations: undefined }, before))
    await session.query(
      `insert into erserver.captured_table (id, relation, schema_name, table_name, key, attributes, columns, registered, definition, relations)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
       on conflict (relation) do update set schema_name = excluded.schema_name, table_name = excluded.table_name, key = excluded.key,
         columns = excluded.columns, registered = excluded.registered, definition = excluded.definition`,
      [
        id,
        table.oid,
        schema,
        name,
        key,
        numbers,
        as.columns,
        registered,
        as.definition,
        relations.map(({ oid }) => oid),
      ],
    );
  return { wish, spec, known, widened };
}

/** What is known of a table, unless somebody has taken triggers of it away. */
async function stillRecorded(
  session: ControlSession,
  { relations }: TableToCapture,
  known: Known | undefined,
  triggers: Triggers,
): Promise<Known | undefined> {
  if (known === undefined) return undefined;
  const bare = untriggered(triggers, known.id, relations);
  if (!bare.some(({ oid }) => known.relations.includes(oid))) return known;
  await releaseTable(session, known.id);
  return undefined;
}

async function nextId(session: ControlSession): Promise<number> {
  const [row] = await session.query("select pg_catalog.nextval('erserver.captured_table_id')::text as id");
  return Number(row?.["id"]);
}

/** How tables are recorded, whoever has asked for it, by OID. */
export async function readKnown(
  session: ControlSession,
  oids: readonly number[],
): Promise<Map<number, Known>> {
  const rows = await session.query<{ known: string }>(
    `select pg_catalog.json_build_object('relation', relation::int8, 'id', id, 'schema', schema_name, 'name', table_name, 'key', key,
       'attributes', attributes, 'relations', relations::int8[], 'columns', columns, 'registered', registered, 'definition', definition)::text as known
     from erserver.captured_table where relation = any ($1::oid[])`,
    [oids],
  );
  return new Map(
    rows.map((row) => {
      const { relation, ...known } = JSON.parse(row.known) as Known & { readonly relation: number };
      return [relation, known];
    }),
  );
}

interface KeyAttribute {
  readonly number: number;
  readonly column: KeyColumn;
}

interface AttributeRow {
  oid: string;
  name: string;
  number: string;
  collation: string | null;
}

/** By the table's OID. */
async function readAttributes(
  session: ControlSession,
  wanted: readonly TableToCapture[],
): Promise<Map<number, AttributeRow[]>> {
  const rows = await session.query<AttributeRow>(
    `select a.attrelid::text as oid, a.attname as name, a.attnum::text as number,
       case when c.collname <> 'default' then pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.collname) end as collation
     from pg_catalog.pg_attribute a left join pg_catalog.pg_collation c on c.oid = a.attcollation left join pg_catalog.pg_namespace n on n.oid = c.collnamespace
     where a.attrelid = any ($1::oid[]) and a.attnum > 0 and not a.attisdropped`,
    [wanted.map(({ table }) => table.oid)],
  );
  const byTable = new Map<number, AttributeRow[]>();
  for (const row of rows) {
    const oid = Number(row.oid);
    const attributes = byTable.get(oid);
    if (attributes === undefined) byTable.set(oid, [row]);
    else attributes.push(row);
  }
  return byTable;
}

function keyOf({ table, key }: TableToCapture, attributes: readonly AttributeRow[]): KeyAttribute[] {
  return key.map((name) => {
    const row = attributes.find((candidate) => candidate.name === name);
    const { typeName, baseType, equalitySchema } = table.columns.find(
      (column) => column.name === name,
    ) as CatalogColumn;
    const collation = row?.collation ?? null;
    const isDomain = baseType !== null;
    const column = { name, type: baseType ?? typeName, isDomain, collation, equalitySchema };
    return { number: Number(row?.number), column };
  });
}

/** Of each of our triggers that are there and fire: OID of its relation, its name, and the number of the captured table. */
type Triggers = ReadonlySet<string>;

async function readTriggers(session: ControlSession, wanted: readonly TableToCapture[]): Promise<Triggers> {
  const rows = await session.query<{ trigger: string }>(
    `select pg_catalog.concat_ws(' ', g.tgrelid, g.tgname, pg_catalog.substring(p.proname::text, '^capture_([0-9]+)_')) as trigger
     from pg_catalog.pg_trigger g join pg_catalog.pg_proc p on p.oid = g.tgfoid
     where g.tgrelid = any ($1::oid[]) and g.tgenabled in ('O', 'A') and p.pronamespace = 'erserver'::regnamespace`,
    [wanted.flatMap(({ relations }) => relations.map(({ oid }) => oid))],
  );
  return new Set(rows.map(({ trigger }) => trigger));
}

/** Those that lack one of our triggers, or have it disabled. */
function untriggered(triggers: Triggers, id: number, relations: readonly Relation[]): Relation[] {
  return relations.filter(
    ({ oid, role }) => !triggerNames(role).every((name) => triggers.has(`${oid} ${name} ${id}`)),
  );
}

/**
 * From column mode to all columns. A transaction that the old function has seen may still be in progress: without its end its rows would
 * be read as they were, and be recorded by nobody. Before the end of this the table counts as by column: whoever is stopped does it again.
 */
async function recordWhole(
  session: ControlSession,
  spec: CaptureSpec,
  relations: readonly Relation[],
): Promise<void> {
  const { id } = spec;
  const [table] = relations as readonly [Relation];
  const triggers = relations.map((relation) => createTriggers(id, relation));
  await behindWriters(session, table, [dropFunctions(id), createFunctions(spec), ...triggers].join("; "));
  await recordAllRows(session, spec, table);
  await session.query("update erserver.captured_table set columns = null, definition = $2 where id = $1", [
    id,
    definitionOf(spec),
  ]);
}

/** Waits for the table's writers, a little at a time: whoever wants to write meanwhile waits behind us. */
async function behindWriters(session: ControlSession, relation: Relation, sql: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await session.query(`begin; set local lock_timeout = ${LOCK_TIMEOUT_MS}; ${sql}; commit`);
      return;
    } catch (error) {
      await session.query("rollback").catch(() => {});
      const state = sqlStateOf((error as Error).cause ?? error);
      if (state === SQLSTATE.insufficientPrivilege) throw mayNotTrigger(relation, error as Error);
      if (state !== SQLSTATE.lockNotAvailable) throw error;
      if (attempt === LOCK_ATTEMPTS) throw writtenTo(relation, error as Error);
      await sleep(LOCK_PAUSE_MS);
    }
  }
}

/** A table that somebody has asked for by itself. */
export interface RegisteredTable {
  /** Number in erserver.captured_table. */
  readonly id: number;
  readonly oid: number;
  /** As it is called now, or was when it was dropped. */
  readonly schema: string;
  readonly name: string;
  /** Column mode; null for all. */
  readonly columns: readonly string[] | null;
  /** It is not there any more. */
  readonly dropped: boolean;
}

export async function readRegisteredTables(session: ControlSession): Promise<RegisteredTable[]> {
  const rows = await session.query<{ registered: string }>(
    `select pg_catalog.json_build_object('id', t.id, 'oid', t.relation::int8, 'schema', coalesce(n.nspname, t.schema_name), 'name', coalesce(c.relname, t.table_name),
       'columns', t.columns, 'dropped', c.oid is null)::text as registered
     from erserver.captured_table t left join pg_catalog.pg_class c on c.oid = t.relation left join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where t.registered`,
  );
  return rows
    .map(({ registered }) => JSON.parse(registered) as RegisteredTable)
    .toSorted((a, b) => (tableKey(a.schema, a.name) < tableKey(b.schema, b.name) ? -1 : 1));
}

/** The targets that want a table, other than those that want what is registered. */
export async function otherConsumers(session: ControlSession, id?: number): Promise<string[]> {
  const rows = await session.query<{ pipeline: string }>(
    "select coalesce(name, pipeline) as pipeline from erserver.consumer where not registered_only and ($1::int is null or $1 = any (tables)) order by 1",
    [id ?? null],
  );
  return rows.map(({ pipeline }) => pipeline);
}

/** Nobody asks for the table by itself any more, and whoever wants no other tables than such does not want it either. */
export async function unregisterTable(session: ControlSession, id: number): Promise<void> {
  await session.query("update erserver.captured_table set registered = false where id = $1", [id]);
  await session.query(
    "update erserver.consumer set tables = pg_catalog.array_remove(tables, $1) where registered_only and $1 = any (tables)",
    [id],
  );
  // Wanted again it comes whole.
  await session.query(
    "update erserver.prepared_sync set tables = pg_catalog.array_remove(tables, $1) where $1 = any (tables)",
    [id],
  );
}

/** Removes what records changes of a table; the user's table stays. */
async function releaseTable(session: ControlSession, id: number): Promise<void> {
  await session.query(dropCapture(id));
  await session.query("delete from erserver.captured_table where id = $1", [id]);
}

/**
 * Forgets everything in a database that a dump, or a copy of the database, has brought it to: the transaction numbers are of another
 * cluster, and the tables are others.
 */
export async function forgetIfRestored(session: ControlSession): Promise<void> {
  await oneAtATime(session, async () => {
    const [row] = await session.query(
      `select here.system, here.database::text, (o.system is not null)::text as known, (o.system = here.system and o.database = here.database)::text as same
       from (select c.system_identifier::text as system, d.oid as database from pg_catalog.pg_control_system() as c
           join pg_catalog.pg_database as d on d.datname = pg_catalog.current_database()) as here
         left join erserver.capture_origin as o on true`,
    );
    if (row?.["same"] === "true") return;
    if (row?.["known"] === "true") {
      const tables = await session.query<{ id: string }>("select id::text from erserver.captured_table");
      for (const { id } of tables) await releaseTable(session, Number(id));
      await session.query("delete from erserver.consumer; delete from erserver.capture_origin");
    }
    await session.query("insert into erserver.capture_origin (system, database) values ($1, $2)", [
      row?.["system"],
      row?.["database"],
    ]);
  });
}

/** Removes what records changes of tables that no target wants and nobody has asked for by themselves; returns how many they were. */
export async function releaseUnwanted(session: ControlSession): Promise<number> {
  const unwanted = await session.query<{ id: string }>(
    "select id::text from erserver.captured_table t where not registered and not exists (select from erserver.consumer where t.id = any (tables))",
  );
  for (const { id } of unwanted) await releaseTable(session, Number(id));
  return unwanted.length;
}

/**
 * Removes all that trigger capture has in schema `erserver`, once no table is recorded and no target known, and the schema itself if
 * nothing else is in there; says what it was.
 */
export async function dropCaptureIfUnused(
  session: ControlSession,
): Promise<"schema" | "content" | undefined> {
  const used = await session.query(
    "select 1 as one from erserver.captured_table union all select 1 from erserver.consumer limit 1",
  );
  if (used.length > 0) return undefined;
  await session.query(
    // Before its migration the first is not there.
    `drop table if exists erserver.prepared_sync; drop table erserver.consumer, erserver.replacement, erserver.captured_table, erserver.capture_origin; drop sequence erserver.captured_table_id;
     delete from erserver.migration where name like 'source/%'`,
  );
  const [rest] = await session.query("select exists (select from erserver.migration)::text as some");
  if (rest?.["some"] === "false") await session.query("drop table erserver.migration");
  return (await dropSchemaIfEmpty(session)) ? "schema" : "content";
}

/** Who may not make schemas in the database had it made by somebody else, and would not get it back. */
async function dropSchemaIfEmpty(session: ControlSession): Promise<boolean> {
  const [row] = await session.query(
    `select (pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')
       and not exists (select from pg_catalog.pg_class where relnamespace = n.oid) and not exists (select from pg_catalog.pg_proc where pronamespace = n.oid))::text as empty
     from pg_catalog.pg_namespace n where nspname = 'erserver'`,
  );
  if (row?.["empty"] !== "true") return false;
  await session.query("drop schema erserver");
  return true;
}

/**
 * Records all rows of a relation as changed, without saying how: of one that has become a partition nobody knows what it held before
 * its triggers were there.
 */
export async function recordAllRows(
  session: ControlSession,
  { id, key }: Pick<CapturedTable, "id" | "key">,
  relation: Pick<Relation, "schema" | "name">,
): Promise<void> {
  if (key.length === 0) {
    await session.query(
      "insert into erserver.replacement (xid, captured_table) values (pg_catalog.txid_current(), $1)",
      [id],
    );
    return;
  }
  await session.query(
    `insert into ${logName(id)} (xid, ${logKey(key).join(", ")}, delta)
     select pg_catalog.txid_current(), ${key.map(({ name }) => quoteIdent(name)).join(", ")}, 0 from ${quoteQualified(relation.schema, relation.name)}`,
  );
}

/** A replicator tries again by itself, a command does not. */
function writtenTo({ schema, name }: Relation, cause: Error): ErserverError {
  const label = tableLabel(schema, name);
  return new ErserverError(
    "ERS-705",
    `triggers cannot be made on ${label} while transactions that write to it are in progress`,
    {
      subject: label,
      remedy: `Wait until they have ended (pg_stat_activity and pg_locks show them), then run the command again; a replicator that runs goes on by itself.`,
      cause,
    },
  );
}

function mayNotTrigger({ schema, name }: Relation, cause: Error): ErserverError {
  const label = tableLabel(schema, name);
  return new ErserverError("ERS-304", `triggers cannot be made on ${label}: ${cause.message}`, {
    subject: label,
    remedy: `Run on the source as the table's owner: GRANT TRIGGER ON ${label} TO the role of the configuration;`,
    cause,
  });
}

function keyChanged({ schema, name }: CatalogTable, key: readonly string[]): ErserverError {
  const label = tableLabel(schema, name);
  return new ErserverError(
    "ERS-505",
    `the rows of ${label} are named by other columns (${key.join(", ")}) than when its changes began to be recorded`,
    {
      subject: label,
      remedy: `Give ${label} its old key back; or have it recorded anew: exclude it in the configuration, erserver sync, take it out of there, empty it on the target, erserver run.`,
    },
  );
}
