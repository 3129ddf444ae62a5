import { formatBytes, formatCount, formatDuration } from "../../observability/figures.ts";
import type { ControlSession } from "../../postgres/connect.ts";
import { captureExists, readLogs } from "./consumers.ts";
import { parseSnapshot } from "./snapshot.ts";

/** How much may be kept for a target that stays away. */
export interface LogBudget {
  /** Recorded changes; undefined is any number. */
  readonly rows: number | undefined;
  /** Bytes of the logs of its tables. */
  readonly bytes: number;
  /** Milliseconds since the source last heard of it. */
  readonly ageMs: number;
}

/** A target for which more is kept than the budget allows. */
export interface Overdue {
  /** Its name on the source. */
  readonly pipeline: string;
  /** As its configuration calls it. */
  readonly name: string;
  /** `12 GB of changes`, `changes of 8 d`. */
  readonly what: string;
}

/** Who has told something since is at work, however much there is to do. */
const PRESENT_MS = 60_000;

interface ConsumerRow {
  pipeline: string;
  name: string;
  snapshot: string;
  tables: string;
  silent: string;
}

/** The targets beyond the budget. How much there is, is put down to the one that is furthest behind. */
export async function readOverdue(session: ControlSession, budget: LogBudget): Promise<Overdue[]> {
  if (!(await captureExists(session))) return [];
  const consumers = await session.query<ConsumerRow>(
    `select pipeline, coalesce(pg_catalog.to_json(c) ->> 'name', pipeline) as name, snapshot::text, pg_catalog.to_json(tables)::text as tables,
       extract(epoch from pg_catalog.clock_timestamp() - confirmed_at)::float8::text as silent
     from erserver.consumer as c order by pg_catalog.txid_snapshot_xmin(snapshot)`,
  );
  const overdue: Overdue[] = [];
  for (const [index, { pipeline, name, snapshot, tables: ids, silent }] of consumers.entries()) {
    const silentMs = Number(silent) * 1000;
    if (silentMs < PRESENT_MS) continue;
    const tables = JSON.parse(ids) as number[];
    const { xmax } = parseSnapshot(snapshot);
    const logs = await readLogs(session, tables);
    const rows = await countBehind(session, tables, logs, xmax, budget.rows ?? 0);
    if (rows === 0) continue;
    if (silentMs > budget.ageMs)
      overdue.push({ pipeline, name, what: `changes of ${formatDuration(silentMs)}` });
    else if (index > 0) continue;
    else if (budget.rows !== undefined && rows > budget.rows)
      overdue.push({ pipeline, name, what: `more than ${formatCount(budget.rows)} changes` });
    else {
      const bytes = logs.reduce((sum, log) => sum + log.bytes, 0);
      if (bytes > budget.bytes) overdue.push({ pipeline, name, what: `${formatBytes(bytes)} of changes` });
    }
  }
  return overdue;
}

/** Recorded changes behind a snapshot, counted up to one more than `most`. */
async function countBehind(
  session: ControlSession,
  tables: readonly number[],
  logs: readonly { readonly log: string }[],
  xmax: bigint,
  most: number,
): Promise<number> {
  const places = [
    ...logs.map(({ log }) => `select from ${log} where xid >= ${xmax}`),
    `select from erserver.replacement where captured_table = any ($1) and xid >= ${xmax}`,
  ];
  const [row] = await session.query(
    `select count(*)::text as rows from (select from (${places.join(" union all ")}) as behind limit ${most + 1}) as counted`,
    [tables],
  );
  return Number(row?.["rows"]);
}
