import { setTimeout as sleep } from "node:timers/promises";
import type { Conninfo } from "../config/conninfo.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { ServerError } from "../errors/server-error.ts";
import { SQLSTATE } from "../errors/sqlstate.ts";
import { lockKeys, lockQuery } from "../postgres/advisory-lock.ts";
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

/** Of a session that writes beside the first. */
export interface WorkerSessionOptions {
  readonly conninfo: Conninfo;
  readonly pipeline: string;
  readonly version: number;
  readonly applicationName: string;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

export interface TargetSessionOptions extends WorkerSessionOptions {
  /** Backends that this process left behind when a connection broke: they may be ended. */
  readonly ownBackends: ReadonlySet<number>;
}

/**
 * Opens the one session that may apply for this pipeline: it holds the pipeline's advisory lock. A session of
 * ours that the server has not yet noticed to be dead may still hold the lock, and may still commit what it
 * received: it is ended first, and progress is read only after that.
 */
export async function openTargetSession(options: TargetSessionOptions): Promise<TargetSession> {
  const connection = await connectWriter(options);
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
    await endWorkers(connection, options);
    return { connection, replicaRole: await becomeReplica(connection) };
  } catch (error) {
    connection.destroy();
    throw error;
  }
}

/** Opens one more session for the pipeline whose lock another of ours holds. */
export async function openWorkerSession(options: WorkerSessionOptions): Promise<WireConnection> {
  const connection = await connectWriter(options);
  try {
    await connection.query(
      `select pg_catalog.pg_advisory_lock_shared(${lockKeys("worker", options.pipeline)})`,
    );
    await becomeReplica(connection);
    return connection;
  } catch (error) {
    connection.destroy();
    throw error;
  }
}

function connectWriter(options: WorkerSessionOptions): Promise<WireConnection> {
  const settings = { ...writerSettings(options.timeoutMs, options.version), ...BY_KEY };
  return connectWatched(options.conninfo, { ...options, settings });
}

/** Whoever has the pipeline's lock has no other replicator's workers beside him: theirs is gone, and they may not commit any more. */
async function endWorkers(
  connection: WireConnection,
  { pipeline, timeoutMs }: WorkerSessionOptions,
): Promise<void> {
  const end = `select pg_catalog.pg_terminate_backend(pid) from (${lockQuery("worker", pipeline)}) as workers`;
  for (const start = performance.now(); ; await sleep(20)) {
    const [result] = await connection.query(end);
    if (result?.rows.length === 0) return;
    if (performance.now() - start > timeoutMs) throw targetBusy(pipeline, undefined);
  }
}

async function lockHolder(connection: WireConnection, pipeline: string): Promise<number | undefined> {
  const [result] = await connection.query(lockQuery("apply", pipeline));
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
