import type { Lsn } from "../../change/lsn.ts";

/** Microseconds between 1970-01-01 and 2000-01-01, PostgreSQL's epoch: 10,957 days. */
const POSTGRES_EPOCH_US = 946_684_800_000_000;

/** The positions that the source is told. In pg_stat_replication: write_lsn, flush_lsn and replay_lsn. */
export interface Positions {
  /** Received and handed on. */
  readonly receivedLsn: Lsn;
  /** Durable on the target: the slot moves here, and the source may remove what lies before. Zero leaves the slot where it is. */
  readonly flushedLsn: Lsn;
  /** Committed on the target. */
  readonly appliedLsn: Lsn;
}

const STANDBY_STATUS_UPDATE = 0x72;

/** Standby status update. https://www.postgresql.org/docs/current/protocol-replication.html */
export function encodeStatusUpdate(positions: Positions, nowMs: number, replyRequested: boolean): Buffer {
  const message = Buffer.allocUnsafe(34);
  message[0] = STANDBY_STATUS_UPDATE;
  message.writeBigUInt64BE(positions.receivedLsn, 1);
  message.writeBigUInt64BE(positions.flushedLsn, 9);
  message.writeBigUInt64BE(positions.appliedLsn, 17);
  message.writeBigInt64BE(BigInt(Math.round(nowMs * 1000) - POSTGRES_EPOCH_US), 25);
  message[33] = replyRequested ? 1 : 0;
  return message;
}
