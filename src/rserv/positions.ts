import { LogCleaner } from "../capture/trigger/log-cleaner.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { type Database, inDatabase, requireMaster, requireSlave } from "./database.ts";

export interface SlavePosition {
  /** As the master knows the slave. */
  readonly name: string;
  /** Database on the master's server. */
  readonly master: string;
  /** Number of the last sync that was applied. */
  readonly syncId: bigint;
}

/** Where a slave is, by its own record. Throws ERS-407 when nothing was applied yet. */
export async function slavePositions(slave: Database): Promise<SlavePosition[]> {
  return inDatabase(slave, "target", async (session) => {
    await requireSlave(session, slave);
    const rows = await session.query<{ name: string; master: string; sync: string }>(
      `select p.name, p.source_database as master, (g.lsn - '0/0'::pg_lsn)::text as sync from erserver.pipeline p join erserver.progress g on g.pipeline = p.name
       where p.capture = 'trigger' order by p.registered_only desc, p.name`,
    );
    if (rows.length > 0) return rows.map(({ sync, ...rest }) => ({ ...rest, syncId: BigInt(sync) }));
    const { database } = slave.conninfo;
    throw new ErserverError("ERS-407", `no sync was applied to ${database} yet`, {
      subject: database,
      remedy: `Run: Replicate MASTERDB ${database}`,
    });
  });
}

export interface Cleaned {
  readonly removed: number;
  /** Slaves that have not told that they have the sync; undefined of those that never told anything. */
  readonly behind: readonly { readonly name: string; readonly syncId: bigint | undefined }[];
}

/** Removes from the logs what every slave has: never more, whatever number is asked for. */
export async function cleanLog(master: Database, syncId: bigint | undefined): Promise<Cleaned> {
  return inDatabase(master, "source", async (session) => {
    await requireMaster(session, master);
    const tables = await session.query<{ id: string }>("select id::text from erserver.captured_table");
    const cleaner = new LogCleaner(session);
    const removed = await cleaner.clean(
      tables.map(({ id }) => Number(id)),
      Number.POSITIVE_INFINITY,
    );
    const consumers = await session.query<{ name: string; sync: string | null }>(
      "select coalesce(name, pipeline) as name, sync::text from erserver.consumer where $1::bigint is null or sync is null or sync < $1::bigint order by pipeline",
      [syncId === undefined ? null : String(syncId)],
    );
    const behind = consumers.map(({ name, sync }) => ({
      name,
      syncId: sync === null ? undefined : BigInt(sync),
    }));
    return { removed, behind: syncId === undefined ? [] : behind };
  });
}
