import type { Conninfo } from "../config/conninfo.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { ServerError } from "../errors/server-error.ts";
import { SQLSTATE } from "../errors/sqlstate.ts";
import { applierQuery, lockKeys } from "../postgres/advisory-lock.ts";
import { connectWatched } from "../postgres/watchdog.ts";
import type { WireConnection } from "../wire/connection.ts";

/**
 * Settings of a session that writes to the target. `synchronous_commit = off`: a commit is acknowledged to the
 * source only once the target has flushed it. The rest lets the server notice a dead replicator about as soon
 * as the replicator notices a dead server.
 */
export function writerSettings(timeoutMs: number, version: number): Record<string, string> {
  const seconds = Math.max(3, Math.round(timeoutMs / 3_000));
  return {
    synchronous_commit: "off",
    idle_in_transaction_session_timeout: String(timeoutMs * 4),
    tcp_keepalives_idle: String(seconds),
    tcp_keepalives_interval: String(seconds),
    tcp_keepalives_count: "2",
    ...(version >= 120_000 ? { tcp_user_timeout: String(timeoutMs) } : {}),
    ...(version >= 140_000 ? { client_connection_check_interval: String(timeoutMs) } : {}),
  };
}

/** Rows are found by their key, one by one, however many a statement names: a join that scans a large table never pays. */
const BY_KEY = { enable_hashjoin: "off", enable_mergejoin: "off", enable_seqscan: "off" };

/**
 * Triggers and foreign keys of the target do not fire again for rows that come from the source. Returns false
 * where the role may not say so (superuser; from 15 on GRANT SET ON PARAMETER session_replication_role).
 */
export async function becomeReplica(connection: WireConnection): Promise<boolean> {
  try {
    await connection.query("set session_replication_role = replica");
    return true;
  } catch (error) {
    if (error instanceof ServerError && error.code === SQLSTATE.insufficientPrivilege) return false;
    throw error;
  }
}

export interface TargetSession {
  readonly connection: WireConnection;
  /** False: triggers and foreign keys of the target fire. */
  readonly replicaRole: boolean;
}

export interface TargetSessionOptions {
  readonly conninfo: Conninfo;
  readonly pipeline: string;
  readonly version: number;
  readonly applicationName: string;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
  /** Backends that this process left behind when a connection broke: they may be ended. */
  readonly ownBackends: ReadonlySet<number>;
}

/**
 * Opens the one session that may apply for this pipeline: it holds the pipeline's advisory lock. A session of
 * ours that the server has not yet noticed to be dead may still hold the lock, and may still commit what it
 * received: it is ended first, and progress is read only after that.
 */
export async function openTargetSession(options: TargetSessionOptions): Promise<TargetSession> {
  const connection = await connectWatched(options.conninfo, {
    ...options,
    settings: { ...writerSettings(options.timeoutMs, options.version), ...BY_KEY },
  });
  try {
    const key = lockKeys("apply", options.pipeline);
    const tryLock = async (): Promise<boolean> => {
      const [lock] = await connection.query(`select pg_catalog.pg_try_advisory_lock(${key})`);
      return lock?.rows[0]?.[0] === "t";
    };
    if (!(await tryLock())) {
      const holder = await lockHolder(connection, options.pipeline);
      if (holder !== undefined && options.ownBackends.has(holder))
        await connection.query(`select pg_catalog.pg_terminate_backend(${holder})`);
      if (!(await tryLock())) throw targetBusy(options.pipeline, holder);
    }
    return { connection, replicaRole: await becomeReplica(connection) };
  } catch (error) {
    connection.destroy();
    throw error;
  }
}

async function lockHolder(connection: WireConnection, pipeline: string): Promise<number | undefined> {
  const [result] = await connection.query(applierQuery(pipeline));
  const pid = result?.rows[0]?.[0];
  return pid == null ? undefined : Number(pid);
}

function targetBusy(pipeline: string, holder: number | undefined): ErserverError {
  return new ErserverError(
    "ERS-508",
    `another replicator serves target ${pipeline}${holder === undefined ? "" : ` (backend ${holder})`}`,
    {
      subject: pipeline,
      remedy: "Nothing to do: this one waits and takes over when the other ends.",
    },
  );
}
