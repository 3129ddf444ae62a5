import { formatLsn } from "../change/lsn.ts";
import type { Transaction } from "../change/transaction.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import type { ServerError } from "../errors/server-error.ts";
import { SQLSTATE } from "../errors/sqlstate.ts";
import { withoutValues } from "../observability/redact.ts";
import { tableLabel } from "../postgres/catalog.ts";
import { isPassing, passingFailure } from "../postgres/failures.ts";
import type { TablePlan } from "./table-plan.ts";

/** Names the transaction as the source knows it. */
export function transactionLabel(transaction: Transaction): string {
  return `transaction ${transaction.xid}, committed at ${formatLsn(transaction.commitLsn)}, ${new Date(transaction.commitTime / 1000).toISOString()}`;
}

/** `doing` is what the target refused: insert, update, delete, truncate, commit, progress. What is passing is tried again (ERS-705). */
export function applyRefused(
  error: ServerError,
  plan: TablePlan | undefined,
  transaction: Transaction | undefined,
  doing: string,
  key?: string,
): ErserverError {
  if (isPassing(error.code)) return passingFailure(error, error.code, "the target");
  const { constraint, column } = error.fields;
  const object = [constraint && `constraint "${constraint}"`, column && `column "${column}"`]
    .filter(Boolean)
    .join(", ");
  const what = `${plan?.label ?? "the target"}: ${doing} refused by the target: ${withoutValues(error.message, error.code)} (SQLSTATE ${error.code}${object === "" ? "" : `, ${object}`})`;
  return new ErserverError(
    "ERS-701",
    transaction === undefined ? what : `${what}; ${transactionLabel(transaction)}`,
    {
      ...(plan === undefined ? {} : { subject: plan.label }),
      ...(key === undefined ? {} : { detail: `key ${key}` }),
      remedy: remedyFor(error, plan?.label ?? "the table"),
      cause: error,
    },
  );
}

function remedyFor(error: ServerError, label: string): string {
  const goOn = "then start erserver again: it goes on with this transaction.";
  switch (error.code) {
    case SQLSTATE.uniqueViolation:
    case SQLSTATE.exclusionViolation:
      return `Remove or correct the row of ${label} on the target that is in the way, ${goOn}`;
    case SQLSTATE.foreignKeyViolation:
      return `Let the role set session_replication_role (superuser, or GRANT SET ON PARAMETER session_replication_role from 15 on), or mend the rows, ${goOn}`;
    case SQLSTATE.notNullViolation:
      return `Give the column a default or drop NOT NULL on the target, ${goOn}`;
    case SQLSTATE.insufficientPrivilege:
      return `GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ${label} TO the role on the target, ${goOn}`;
    case SQLSTATE.untranslatableCharacter:
      return "The target's encoding cannot hold this character: copy to a database in UTF8.";
    default:
      return `Make ${label} on the target take the change, ${goOn}`;
  }
}

/** A row filter turned an UPDATE into an INSERT, and the source did not send values that it did not change. */
export function columnsNotSent(plan: TablePlan, transaction: Transaction): ErserverError {
  return new ErserverError(
    "ERS-702",
    `a row of ${plan.label} is new to the target, and the source did not send its large unchanged columns; ${transactionLabel(transaction)}`,
    {
      subject: plan.label,
      remedy: `Run on the source: ALTER TABLE ${plan.label} REPLICA IDENTITY FULL; then start over for this target: erserver drop, empty its tables, erserver run.`,
    },
  );
}

/** Before 13 a source tells its partitions one by one, and the rows of one cannot be told from the others' here. */
export function partTruncated(plans: readonly TablePlan[], transaction: Transaction): ErserverError {
  const part = plans.find(({ sharedBy }) => sharedBy > 1);
  const label = part?.label ?? "the table";
  const names = plans
    .filter((plan) => plan.label === label)
    .map(({ relation }) => tableLabel(relation.schema, relation.name));
  return new ErserverError(
    "ERS-701",
    `TRUNCATE of ${names.join(", ")} alone cannot be applied to ${label}, which has the rows of other partitions too; ${transactionLabel(transaction)}`,
    {
      subject: label,
      remedy: `Start over for this target (erserver drop, empty its tables, erserver run), and use DELETE for single partitions, or set \`tables: { publish_via_partition_root: false }\` and partition ${label} on the target as on the source.`,
    },
  );
}
