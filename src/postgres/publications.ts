import { ErserverError } from "../errors/erserver-error.ts";
import { SQLSTATE } from "../errors/sqlstate.ts";
import { quoteIdent, quoteQualified } from "../quote/ident.ts";
import { tableKey, tableLabel } from "./catalog.ts";
import type { ControlSession } from "./connect.ts";
import { sqlStateOf } from "./failures.ts";
import type { PublishedTable } from "./selection.ts";

/**
 * The publications of a pipeline. Tables without a row identity stand in a second one that publishes inserts
 * only: in the first, the user's own UPDATE and DELETE on them would fail on the source.
 */
export interface PublicationNames {
  readonly all: string;
  readonly insertOnly: string;
}

/** The first version that publishes TRUNCATE. */
export const TRUNCATE_PUBLICATION = 110_000;

export function publicationNames(slot: string): PublicationNames {
  return { all: slot, insertOnly: `${slot.slice(0, 56)}_insert` };
}

interface Wanted {
  readonly name: string;
  readonly publish: string;
  readonly viaRoot: boolean;
  readonly generated: boolean;
  readonly tables: readonly PublishedTable[];
}

export interface PublicationPlan {
  readonly names: PublicationNames;
  readonly published: readonly PublishedTable[];
  readonly publishViaPartitionRoot: boolean;
  readonly sourceVersion: number;
  /** False before this pipeline was registered: publications of these names, if any, were made by somebody else. */
  readonly ours: boolean;
  /** Undefined until changes are read by them; then the relations that must have stood in them all the time. */
  readonly followed: readonly PublishedTable[] | undefined;
}

/** Changes when anybody makes the publications publish something else, also by renaming a table or making it anew. */
export async function publicationFingerprint(
  session: ControlSession,
  { all, insertOnly }: PublicationNames,
): Promise<string> {
  const [row] = await session.query(
    `select coalesce(pg_catalog.md5(pg_catalog.string_agg(one, ';' order by one)), '') as fingerprint from (
       select pg_catalog.concat_ws(',', p.pubname, p.pubinsert, p.pubupdate, p.pubdelete, r.prrelid, n.nspname, c.relname) as one
       from pg_catalog.pg_publication p left join pg_catalog.pg_publication_rel r on r.prpubid = p.oid
         left join pg_catalog.pg_class c on c.oid = r.prrelid left join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       where p.pubname = any ($1)) as all_of_them`,
    [[all, insertOnly]],
  );
  return row?.["fingerprint"] ?? "";
}

/** What makes one publication publish what is wanted. */
export interface PublicationChange {
  readonly name: string;
  readonly statements: readonly string[];
}

/**
 * What has to be done for the publications to publish exactly the plan; nothing when they do, whoever made them.
 * Throws ERS-505 when one that is read from was changed by somebody else: what it has left out meanwhile cannot be had
 * any more; ERS-506 when one of our name is somebody else's.
 */
export async function planPublications(
  session: ControlSession,
  plan: PublicationPlan,
): Promise<PublicationChange[]> {
  const { sourceVersion } = plan;
  const pairs: Pair[] = await Promise.all(
    wantedPublications(plan).map(async (wanted) => ({
      wanted,
      current: await readPublication(session, wanted.name, sourceVersion),
    })),
  );
  if (plan.followed !== undefined) requireFollowed(plan.followed, pairs);
  return pairs.flatMap(({ wanted, current }) => {
    const statements = statementsFor(wanted, current, sourceVersion);
    if (statements.length === 0) return [];
    if (current !== undefined && !plan.ours) throw publicationTaken(wanted.name);
    return [{ name: wanted.name, statements }];
  });
}

/**
 * In one transaction: a table that moves from one publication to the other is in one of them at every moment. When the
 * role may not, the error's remedy is the SQL for somebody who may.
 */
export async function changePublications(
  session: ControlSession,
  changes: readonly PublicationChange[],
): Promise<void> {
  const [first] = changes;
  if (first === undefined) return;
  const statements = changes.flatMap((change) => change.statements);
  try {
    await session.query("begin");
    for (const statement of statements) await session.query(statement);
    await session.query("commit");
  } catch (error) {
    await session.query("rollback").catch(() => {});
    throw publicationFailure(error, first.name, statements);
  }
}

interface Pair {
  readonly wanted: Wanted;
  readonly current: CurrentPublication | undefined;
}

function requireFollowed(followed: readonly PublishedTable[], pairs: readonly Pair[]): void {
  for (const { wanted, current } of pairs) {
    if (current === undefined)
      throw publicationChanged(wanted.name, `publication "${wanted.name}" does not exist any more`);
    if (current.publish !== wanted.publish)
      throw publicationChanged(
        wanted.name,
        `publication "${wanted.name}" publishes "${current.publish}" only`,
      );
  }
  const standing = new Set(
    pairs.flatMap(({ current }) => current?.tables ?? []).map((table) => tableKey(table.schema, table.name)),
  );
  const missing = followed.find(({ schema, name }) => !standing.has(tableKey(schema, name)));
  if (missing === undefined) return;
  const label = tableLabel(missing.schema, missing.name);
  throw new ErserverError(
    "ERS-505",
    `table ${label} stands in no publication of ours any more: it was taken out, or dropped and made anew`,
    {
      subject: label,
      remedy: `Its changes since then cannot be had: fill the table again. Put ${label} under tables.exclude, erserver sync, TRUNCATE it on the target, take it out of there, erserver run.`,
    },
  );
}

/** What `publication` left out since somebody changed it cannot be had from the slot. */
export function publicationChanged(publication: string, what: string, cause?: unknown): ErserverError {
  return new ErserverError("ERS-505", `${what}: it was changed behind our back`, {
    subject: publication,
    remedy:
      "Start over for this target: erserver drop, empty its tables, erserver run. What was changed while it was away cannot be had from the slot.",
    ...(cause === undefined ? {} : { cause }),
  });
}

function publicationTaken(name: string): ErserverError {
  return new ErserverError(
    "ERS-506",
    `publication "${name}" exists on the source, publishes something else, and was not made for this target`,
    {
      subject: name,
      remedy: `Rename the target in the configuration, or, if nobody needs the publication: DROP PUBLICATION "${name}";`,
    },
  );
}

async function publicationExists(session: ControlSession, name: string): Promise<boolean> {
  return (
    (await session.query("select 1 as found from pg_catalog.pg_publication where pubname = $1", [name]))
      .length > 0
  );
}

/** Drops both; true for each that existed. */
export async function dropPublications(session: ControlSession, names: PublicationNames): Promise<string[]> {
  const dropped: string[] = [];
  for (const name of [names.all, names.insertOnly]) {
    if (!(await publicationExists(session, name))) continue;
    await session.query(`drop publication ${quoteIdent(name)}`);
    dropped.push(name);
  }
  return dropped;
}

function wantedPublications(plan: PublicationPlan): Wanted[] {
  const truncates = plan.sourceVersion >= TRUNCATE_PUBLICATION;
  const identified = plan.published.filter((table) => table.publishes === "all");
  return [
    {
      name: plan.names.all,
      publish: truncates ? "insert, update, delete, truncate" : "insert, update, delete",
      viaRoot: plan.publishViaPartitionRoot,
      generated: identified.some((table) => table.generatedIdentity),
      tables: identified,
    },
    {
      name: plan.names.insertOnly,
      publish: truncates ? "insert, truncate" : "insert",
      viaRoot: plan.publishViaPartitionRoot,
      generated: false,
      tables: plan.published.filter((table) => table.publishes === "insert"),
    },
  ];
}

function statementsFor(wanted: Wanted, current: CurrentPublication | undefined, version: number): string[] {
  const name = quoteIdent(wanted.name);
  const viaRoot = version >= 130_000 ? `, publish_via_partition_root = ${wanted.viaRoot}` : "";
  const generated =
    version >= 180_000 ? `, publish_generated_columns = ${wanted.generated ? "stored" : "none"}` : "";
  const options = `publish = '${wanted.publish}'${viaRoot}${generated}`;
  const list = wanted.tables.map(publishedTableSql).join(", ");
  if (current === undefined) {
    return [
      `create publication ${name}${wanted.tables.length > 0 ? ` for table ${list}` : ""} with (${options})`,
    ];
  }
  const statements: string[] = [];
  if (
    current.publish !== wanted.publish ||
    (version >= 130_000 && current.viaRoot !== wanted.viaRoot) ||
    current.generated !== wanted.generated
  ) {
    statements.push(`alter publication ${name} set (${options})`);
  }
  if (!sameTables(current.tables, wanted.tables)) {
    if (wanted.tables.length > 0) statements.push(`alter publication ${name} set table ${list}`);
    else {
      const extra = current.tables
        .map((table) => `only ${quoteQualified(table.schema, table.name)}`)
        .join(", ");
      statements.push(`alter publication ${name} drop table ${extra}`);
    }
  }
  return statements;
}

function publishedTableSql(table: PublishedTable): string {
  const columns = table.columns === undefined ? "" : ` (${table.columns.map(quoteIdent).join(", ")})`;
  const where = table.where === undefined ? "" : ` where (${table.where})`;
  return `only ${quoteQualified(table.schema, table.name)}${columns}${where}`;
}

interface CurrentTable {
  readonly schema: string;
  readonly name: string;
  readonly columns: readonly string[] | null;
  readonly where: string | null;
}

interface CurrentPublication {
  readonly publish: string;
  readonly viaRoot: boolean;
  readonly generated: boolean;
  readonly tables: readonly CurrentTable[];
}

async function readPublication(
  session: ControlSession,
  name: string,
  version: number,
): Promise<CurrentPublication | undefined> {
  const publications = session.query(
    `select pubinsert::text as insert, pubupdate::text as update, pubdelete::text as delete,
       ${version >= TRUNCATE_PUBLICATION ? "pubtruncate::text" : "'false'"} as truncate,${version >= 130_000 ? "pubviaroot::text" : "'false'"} as via_root,
       ${version >= 180_000 ? "(pubgencols = 's')::text" : "'false'"} as generated
     from pg_catalog.pg_publication where pubname = $1`,
    [name],
  );
  const filtered = version >= 150_000;
  const tables = session.query(
    `select n.nspname as schema, c.relname as name,
       ${filtered ? "(select pg_catalog.json_agg(a.attname order by a.attnum)::text from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum = any (r.prattrs::int2[]))" : "null::text"} as columns,
       ${filtered ? "pg_catalog.pg_get_expr(r.prqual, r.prrelid)" : "null::text"} as filter
     from pg_catalog.pg_publication_rel r join pg_catalog.pg_class c on c.oid = r.prrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where r.prpubid = (select oid from pg_catalog.pg_publication where pubname = $1)`,
    [name],
  );
  const [[publication], rows] = await Promise.all([publications, tables]);
  if (publication === undefined) return undefined;
  return {
    publish: (["insert", "update", "delete", "truncate"] as const)
      .filter((kind) => publication[kind] === "true")
      .join(", "),
    viaRoot: publication["via_root"] === "true",
    generated: publication["generated"] === "true",
    tables: rows.map((row) => ({
      schema: row["schema"] ?? "",
      name: row["name"] ?? "",
      columns: row["columns"] == null ? null : (JSON.parse(row["columns"]) as string[]),
      where: row["filter"] ?? null,
    })),
  };
}

/** Row filters are compared as the server prints them: see `readRowFilters`. */
function sameTables(current: readonly CurrentTable[], wanted: readonly PublishedTable[]): boolean {
  if (current.length !== wanted.length) return false;
  const byName = new Map(current.map((table) => [tableKey(table.schema, table.name), table]));
  return wanted.every((table) => {
    const match = byName.get(tableKey(table.schema, table.name));
    if (match === undefined || match.where !== (table.where ?? null)) return false;
    return (
      JSON.stringify(match.columns === null ? null : match.columns.toSorted()) ===
      JSON.stringify(table.columns?.toSorted() ?? null)
    );
  });
}

function publicationFailure(error: unknown, name: string, statements: readonly string[]): unknown {
  const state = sqlStateOf(error);
  const sql = `\n${statements.join(";\n")};`;
  if (state === SQLSTATE.insufficientPrivilege) {
    return new ErserverError(
      "ERS-304",
      `publication "${name}" cannot be made or changed: ${(error as Error).message}`,
      {
        subject: name,
        remedy: `Let the role own the tables and GRANT CREATE ON DATABASE, or have a superuser run on the source: ${sql}`,
        cause: error,
      },
    );
  }
  if (
    state?.startsWith("42") === true ||
    state?.startsWith("22") === true ||
    state?.startsWith("0A") === true
  ) {
    return new ErserverError(
      "ERS-103",
      `the source refuses what is to be published: ${(error as Error).message}`,
      {
        subject: name,
        remedy: "Correct the tables, columns and row filters in the configuration.",
        cause: error,
      },
    );
  }
  return error;
}
