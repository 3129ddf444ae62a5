import { randomBytes } from "node:crypto";
import { type Lsn, parseLsn } from "../change/lsn.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { ServerError } from "../errors/server-error.ts";
import { SQLSTATE } from "../errors/sqlstate.ts";
import { parseSlotName, type SlotName } from "../quote/slot-name.ts";
import { quoteIdent } from "../quote/ident.ts";
import type { WireConnection } from "../wire/connection.ts";
import type { ControlSession } from "./connect.ts";

/** A row of pg_replication_slots. https://www.postgresql.org/docs/current/view-pg-replication-slots.html */
export interface Slot {
  readonly name: string;
  readonly plugin: string | null;
  readonly database: string | null;
  /** Backend that uses it now. */
  readonly activePid: number | undefined;
  readonly confirmedFlushLsn: Lsn | undefined;
  /** `reserved`, `extended`, `unreserved`, `lost`; null before 13, which keeps WAL without a limit. */
  readonly walStatus: string | null;
  /** Bytes of WAL that the source keeps for this slot. */
  readonly retainedBytes: number;
}

export async function readSlot(
  session: ControlSession,
  version: number,
  name: string,
): Promise<Slot | undefined> {
  const [row] = await session.query(
    `select slot_name, plugin, database, active_pid, confirmed_flush_lsn,
       ${version >= 130_000 ? "wal_status" : "null::text as wal_status"},
       coalesce(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn), 0)::bigint as retained
     from pg_catalog.pg_replication_slots where slot_name = $1`,
    [name],
  );
  if (row === undefined) return undefined;
  return {
    name,
    plugin: row["plugin"] ?? null,
    database: row["database"] ?? null,
    activePid: row["active_pid"] == null ? undefined : Number(row["active_pid"]),
    confirmedFlushLsn: row["confirmed_flush_lsn"] == null ? undefined : parseLsn(row["confirmed_flush_lsn"]),
    walStatus: row["wal_status"] ?? null,
    retainedBytes: Number(row["retained"]),
  };
}

/** What a slot's reader has told its WAL sender. */
export interface WalSender {
  /** Applied; undefined when it has not said yet. */
  readonly replayLsn: Lsn | undefined;
  /** How long the last measured change took from the source's commit to being applied. */
  readonly replayLagSeconds: number | undefined;
}

/** Undefined while nobody streams from the slot. https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-REPLICATION-VIEW */
export async function readWalSender(session: ControlSession, slot: string): Promise<WalSender | undefined> {
  const [row] = await session.query(
    `select r.replay_lsn, extract(epoch from r.replay_lag)::float8::text as lag from pg_catalog.pg_stat_replication r
       join pg_catalog.pg_replication_slots s on s.active_pid = r.pid where s.slot_name = $1`,
    [slot],
  );
  if (row === undefined) return undefined;
  return {
    replayLsn: row["replay_lsn"] == null ? undefined : parseLsn(row["replay_lsn"]),
    replayLagSeconds: row["lag"] == null ? undefined : Number(row["lag"]),
  };
}

/** Throws ERS-303 when another slot cannot be made. */
export async function requireFreeSlot(session: ControlSession, name: string): Promise<void> {
  const [row] = await session.query(
    "select count(*)::text as used, pg_catalog.current_setting('max_replication_slots') as most from pg_catalog.pg_replication_slots",
  );
  if (Number(row?.["used"]) < Number(row?.["most"])) return;
  throw noFreeSlot(`all ${row?.["most"]} are taken`, { subject: name, cause: undefined });
}

/** A snapshot of the source and the position in the change stream that it equals. */
export interface ExportedSnapshot {
  /** Transactions with a commit LSN below it are in the snapshot, all others come by the stream. */
  readonly consistentPoint: Lsn;
  /** For SET TRANSACTION SNAPSHOT; valid until the replication connection's next command. */
  readonly snapshotName: string;
  /** As a txid_snapshot, where it is what positions are made of. */
  readonly xids?: string;
}

/**
 * CREATE_REPLICATION_SLOT … EXPORT_SNAPSHOT, in the form that 10 to 18 accept. Waits until every transaction
 * that is running now has ended. https://www.postgresql.org/docs/10/protocol-replication.html
 */
export async function createSlot(
  connection: WireConnection,
  name: SlotName,
  options: { readonly temporary: boolean },
): Promise<ExportedSnapshot> {
  try {
    const [result] = await connection.query(
      `CREATE_REPLICATION_SLOT ${quoteIdent(name)} ${options.temporary ? "TEMPORARY " : ""}LOGICAL pgoutput EXPORT_SNAPSHOT`,
    );
    const row = result?.rows[0];
    return { consistentPoint: parseLsn(row?.[1] ?? ""), snapshotName: row?.[2] ?? "" };
  } catch (error) {
    throw slotFailure(error, name);
  }
}

/**
 * Ends a session that waits for other transactions, in the middle of `createSlot`: the server would not notice before
 * they have ended that nobody waits any more, and then keep the slot.
 */
export async function abandonSlot(session: ControlSession, connection: WireConnection): Promise<void> {
  await session.query("select pg_catalog.pg_terminate_backend($1)", [connection.backendPid]).catch(() => {});
  connection.destroy();
}

/** A slot for its snapshot, which goes with the session. `slot` is the pipeline's. */
export async function createTemporarySlot(
  connection: WireConnection,
  slot: string,
  purpose: "copy" | "verify",
): Promise<ExportedSnapshot> {
  return createSlot(connection, temporarySlotName(slot, purpose), { temporary: true });
}

/** A name that was never used: the source may still keep the slot of a session that it does not know to be dead. */
export function temporarySlotName(slot: string, purpose: "copy" | "verify" | "bulk"): SlotName {
  return parseSlotName(`${slot.slice(0, 47)}_${purpose}_${randomBytes(4).toString("hex")}`);
}

/** Drops the slot; true when there was one. A slot that is in use fails with ERS-507. */
export async function dropSlot(session: ControlSession, name: string): Promise<boolean> {
  try {
    const rows = await session.query(
      "select pg_catalog.pg_drop_replication_slot(slot_name) from pg_catalog.pg_replication_slots where slot_name = $1",
      [name],
    );
    return rows.length > 0;
  } catch (error) {
    throw slotFailure(error, name);
  }
}

/** Names what the source refuses about a slot or a WAL sender; anything else comes back as it is. */
export function slotFailure(error: unknown, name: string): unknown {
  if (!(error instanceof Error) || !("code" in error)) return error;
  const message = error.message;
  const options = { subject: name, cause: error };
  switch (error.code) {
    case SQLSTATE.objectNotInPrerequisiteState:
      if (/wal_level/.test(message)) return walLevelTooLow(message, options);
      if (/can no longer|invalidated|has already been removed|cannot get changes/.test(message))
        return slotLost(name, error);
      return error;
    case SQLSTATE.objectInUse:
      return new ErserverError("ERS-507", `replication slot "${name}" is in use: ${message}`, {
        ...options,
        remedy:
          "Nothing to do: it is taken over when the other session ends. See active_pid in pg_replication_slots.",
      });
    case SQLSTATE.configurationLimitExceeded:
      return noFreeSlot(message, options);
    case SQLSTATE.insufficientPrivilege:
      return new ErserverError("ERS-302", `the role may not use replication slots: ${message}`, {
        ...options,
        remedy:
          "Run on the source as superuser: ALTER ROLE … REPLICATION (managed hosts: GRANT rds_replication or the like).",
      });
    case SQLSTATE.duplicateObject:
      return slotTaken(name, "a slot of this name was made at the same moment");
    case SQLSTATE.undefinedObject:
      return error instanceof ServerError && /publication/.test(message) ? error : slotMissing(name);
    default:
      return /requested WAL segment .* has already been removed/.test(message)
        ? slotLost(name, error)
        : error;
  }
}

function walLevelTooLow(message: string, options: { subject: string; cause: unknown }): ErserverError {
  return new ErserverError("ERS-301", `the source cannot decode its WAL: ${message}`, {
    ...options,
    remedy: "On the source: ALTER SYSTEM SET wal_level = logical; then restart the server.",
  });
}

function noFreeSlot(message: string, options: { subject: string; cause: unknown }): ErserverError {
  return new ErserverError("ERS-303", `no free replication slot or WAL sender on the source: ${message}`, {
    ...options,
    remedy:
      "Raise max_replication_slots and max_wal_senders on the source and restart it, or drop slots that nobody uses (pg_replication_slots).",
  });
}

export function slotTaken(name: string, why: string): ErserverError {
  return new ErserverError("ERS-501", `replication slot "${name}" is not ours: ${why}`, {
    subject: name,
    remedy: `Rename the target in the configuration, or, if nobody needs the slot: SELECT pg_drop_replication_slot('${name}');`,
  });
}

export function slotMissing(name: string): ErserverError {
  return new ErserverError(
    "ERS-502",
    `replication slot "${name}" does not exist any more; changes since the target's position are lost to it`,
    {
      subject: name,
      remedy:
        "Start over for this target: erserver drop, empty its tables, erserver run. (erserver run --adopt instead of emptying them if they are equal.)",
    },
  );
}

export function slotLost(name: string, cause?: unknown): ErserverError {
  return new ErserverError(
    "ERS-503",
    `replication slot "${name}" is lost: the source has removed WAL that it still needed`,
    {
      subject: name,
      remedy:
        "Raise max_slot_wal_keep_size on the source, then start over for this target: erserver drop, empty its tables, erserver run.",
      cause,
    },
  );
}
