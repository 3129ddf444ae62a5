import { type Change, RowChange } from "../change/change.ts";
import type { Group } from "../change/group.ts";
import { formatLsn } from "../change/lsn.ts";
import type { Relation } from "../change/relation.ts";
import type { Transaction } from "../change/transaction.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { SQLSTATE } from "../errors/sqlstate.ts";
import { isPassing } from "../postgres/failures.ts";
import { quoteLiteral } from "../quote/literal.ts";
import type { Batch, BatchResult } from "../wire/batch.ts";
import type { WireConnection } from "../wire/connection.ts";
import { applyRefused, columnsNotSent, partTruncated, transactionLabel } from "./apply-errors.ts";
import type { RowWriter } from "./row-writer.ts";
import { hasAlwaysIdentity, type TablePlan } from "./table-plan.ts";

export interface Replay {
  readonly connection: WireConnection;
  readonly pipeline: string;
  readonly conflict: "source-wins" | "stop";
  readonly writer: RowWriter;
  readonly planOf: (relation: Relation) => TablePlan;
}

type ConflictKind = "insert_exists" | "update_missing" | "delete_missing";

/**
 * Applies the changes of a group one by one in the open target transaction, each behind a savepoint.
 * A row that is in the way of an insert, or missing for an update or delete, is a conflict: with `source-wins`
 * the row becomes what the source says and the conflict is recorded in erserver.conflict; with `stop` it is an error.
 * Returns how many conflicts there were.
 */
export async function replayGroup(replay: Replay, group: Group): Promise<number> {
  let conflicts = 0;
  let index = 0;
  for (const { transaction, end } of group.members) {
    for (; index < end; index++) {
      const change = group.changes[index] as Change;
      if (!(change instanceof RowChange)) {
        await truncate(replay, change.relations, change, transaction);
        continue;
      }
      const plan = replay.planOf(change.relation);
      if (await replayRow(replay, plan, change, transaction)) conflicts++;
    }
  }
  return conflicts;
}

async function truncate(
  replay: Replay,
  relations: readonly Relation[],
  change: Exclude<Change, RowChange>,
  transaction: Transaction,
): Promise<void> {
  const plans = relations.map(replay.planOf);
  const result = await step(replay, (batch) => {
    if (!replay.writer.truncate(batch, plans, change)) throw partTruncated(plans, transaction);
  });
  if (result.error === undefined) return;
  // A table that others refer to cannot be truncated without them, even if nothing refers to its rows: those others may not be
  // replicated, or were copied after they had been truncated together.
  const deleted =
    result.error.code === SQLSTATE.featureNotSupported
      ? await step(replay, (batch) => replay.writer.deleteAll(batch, plans))
      : result;
  if (deleted.error !== undefined) throw applyRefused(result.error, plans[0], transaction, "truncate");
}

/** True when there was a conflict. */
async function replayRow(
  replay: Replay,
  plan: TablePlan,
  change: RowChange,
  transaction: Transaction,
): Promise<boolean> {
  const { writer } = replay;
  const first = await step(replay, (batch) => {
    if (!writer.row(batch, plan, change)) throw columnsNotSent(plan, transaction);
  });
  if (first.error === undefined && first.affected[1] === 1) return false;

  if (first.error !== undefined) {
    const exists =
      change.kind === "insert" && first.error.code === SQLSTATE.uniqueViolation && plan.key.length > 0;
    if (!exists) throw await refused(replay, plan, change, transaction, first);
    await conflict(replay, plan, change, transaction, "insert_exists", "overwritten");
    const overwritten = await step(replay, (batch) => writer.overwrite(batch, plan, change));
    // No row has this key: another unique constraint is in the way, and whose row is right cannot be known.
    if (overwritten.error !== undefined || overwritten.affected[1] !== 1)
      throw await refused(replay, plan, change, transaction, first);
    return true;
  }
  const affected = first.affected[1] as number;
  if (affected > 1) throw await ambiguous(replay, plan, change, transaction, affected);
  if (change.kind === "insert") throw await swallowed(replay, plan, change, transaction);
  if (change.kind === "delete") {
    await conflict(replay, plan, change, transaction, "delete_missing", "nothing to delete");
    return true;
  }
  if (hasAlwaysIdentity(plan)) {
    const rewritten = await step(replay, (batch) => writer.rewrite(batch, plan, change));
    if (rewritten.error !== undefined) throw await refused(replay, plan, change, transaction, rewritten);
    if (rewritten.affected[1] === 1) return false;
  }
  if (!writer.isComplete(plan, change)) {
    throw new ErserverError(
      "ERS-702",
      `a row of ${plan.label} to update is missing on the target, and the source did not send all of it; ${transactionLabel(transaction)}`,
      {
        subject: plan.label,
        detail: `key ${await keyText(replay, plan, change)}`,
        remedy: `Insert the row on the target as the source has it, then start erserver again: it goes on with this transaction. erserver verify shows what else differs.`,
      },
    );
  }
  await conflict(replay, plan, change, transaction, "update_missing", "inserted");
  const inserted = await step(replay, (batch) => writer.newRow(batch, plan, change));
  if (inserted.error !== undefined) throw await refused(replay, plan, change, transaction, inserted);
  return true;
}

/** One statement behind a savepoint, in one flight; when it fails the transaction is as before it. Its result has index 1. */
async function step(replay: Replay, write: (batch: Batch) => void): Promise<BatchResult> {
  const { connection, writer } = replay;
  const batch = connection.batch();
  batch.parse("", "savepoint erserver_step", []);
  batch.bindExecute("", []);
  write(batch);
  batch.parse("", "release savepoint erserver_step", []);
  batch.bindExecute("", []);
  const result = await batch.send();
  if (result.error === undefined) return result;
  if (isPassing(result.error.code)) throw applyRefused(result.error, undefined, undefined, "replay");
  await connection.query(
    "rollback to savepoint erserver_step; release savepoint erserver_step; deallocate all",
  );
  writer.cache.forgetAll();
  return result;
}

async function conflict(
  replay: Replay,
  plan: TablePlan,
  change: RowChange,
  transaction: Transaction,
  kind: ConflictKind,
  resolution: string,
): Promise<void> {
  if (replay.conflict === "stop") {
    throw new ErserverError("ERS-703", `${kind} in ${plan.label}: ${transactionLabel(transaction)}`, {
      subject: plan.label,
      detail: `key ${await keyText(replay, plan, change)}`,
      remedy:
        "Make the target's row equal to the source's, or set `apply: { conflict: source-wins }`; then start erserver again: it goes on with this transaction.",
    });
  }
  const commitTime = new Date(transaction.commitTime / 1000).toISOString();
  const values = [
    quoteLiteral(replay.pipeline),
    quoteLiteral(formatLsn(transaction.commitLsn)),
    quoteLiteral(commitTime),
    String(transaction.xid),
    quoteLiteral(plan.target.schema),
    quoteLiteral(plan.target.name),
    quoteLiteral(kind),
  ];
  const result = await step(replay, (batch) =>
    replay.writer.withKey(
      batch,
      plan,
      change,
      (key) =>
        `insert into erserver.conflict (pipeline, commit_lsn, commit_time, xid, schema_name, table_name, kind, key, resolution)
         values (${values.join(", ")}, ${key}, ${quoteLiteral(resolution)})`,
    ),
  );
  if (result.error !== undefined) throw applyRefused(result.error, plan, transaction, "recording a conflict");
}

async function refused(
  replay: Replay,
  plan: TablePlan,
  change: RowChange,
  transaction: Transaction,
  result: BatchResult,
): Promise<ErserverError> {
  const error = result.error as NonNullable<BatchResult["error"]>;
  return applyRefused(error, plan, transaction, change.kind, await keyText(replay, plan, change));
}

async function ambiguous(
  replay: Replay,
  plan: TablePlan,
  change: RowChange,
  transaction: Transaction,
  rows: number,
): Promise<ErserverError> {
  return new ErserverError(
    "ERS-703",
    `${rows} rows of ${plan.label} on the target have the key of one ${change.kind}; ${transactionLabel(transaction)}`,
    {
      subject: plan.label,
      detail: `key ${await keyText(replay, plan, change)}`,
      remedy: `Remove the rows that are too many and give ${plan.label} on the target the source's unique key, then start erserver again: it goes on with this transaction.`,
    },
  );
}

/** Only where the role may not set session_replication_role. */
async function swallowed(
  replay: Replay,
  plan: TablePlan,
  change: RowChange,
  transaction: Transaction,
): Promise<ErserverError> {
  return new ErserverError(
    "ERS-701",
    `${plan.label}: a trigger or rule of the target kept a row from being inserted; ${transactionLabel(transaction)}`,
    {
      subject: plan.label,
      detail: `key ${await keyText(replay, plan, change)}`,
      remedy: `Disable the trigger or rule of ${plan.label} on the target, or let the role set session_replication_role; then start erserver again: it goes on with this transaction.`,
    },
  );
}

async function keyText(replay: Replay, plan: TablePlan, change: RowChange): Promise<string> {
  const result = await step(replay, (batch) =>
    replay.writer.withKey(batch, plan, change, (key) => `select ${key}::text`),
  );
  return result.rows.get(1)?.[0]?.[0] ?? "unknown";
}
