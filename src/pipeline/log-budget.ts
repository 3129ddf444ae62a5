import { forgetConsumer } from "../capture/trigger/consumers.ts";
import { type Overdue, readOverdue } from "../capture/trigger/log-budget.ts";
import type { Config } from "../config/config.ts";
import type { ControlSession } from "../postgres/connect.ts";
import type { PipelineContext } from "./context.ts";
import type { Problem } from "./limits.ts";

/** How often it is looked at, in milliseconds. */
export const BUDGET_CHECK_MS = 60_000;

/**
 * What is to be said of targets for which the source keeps more than it should, behind doing about it what the configuration says:
 * nothing, or forgetting them.
 */
export async function enforceLogBudget(
  source: ControlSession,
  { captureLog }: Pick<Config, "captureLog">,
): Promise<Problem[]> {
  const overdue = await readOverdue(source, captureLog);
  if (captureLog.exceeded === "forget")
    for (const { pipeline } of overdue) await forgetConsumer(source, pipeline);
  return overdue.map((one) => budgetProblem(one, captureLog.exceeded));
}

/** As `enforceLogBudget`; what is to be said goes to the log. */
export async function watchLogBudget(
  source: ControlSession,
  { config, log }: Pick<PipelineContext, "config" | "log">,
): Promise<void> {
  for (const { message, code, remedy } of await enforceLogBudget(source, config))
    log.warn(message, { code, remedy });
}

export function budgetProblem({ name, what }: Overdue, exceeded: Config["captureLog"]["exceeded"]): Problem {
  return exceeded === "forget"
    ? {
        code: "ERS-511",
        message: `the source keeps ${what} for "${name}", more than \`capture_log\` allows: the target is forgotten`,
        remedy: "Start over for this target when it is back: erserver drop, empty its tables, erserver run.",
      }
    : {
        code: "ERS-511",
        message: `the source keeps ${what} for "${name}", more than \`capture_log\` allows`,
        remedy: `Bring the target back; or give it up: erserver drop (erserver drop --force when it is gone), or MasterDrop MASTERDB --slave=${name}.`,
      };
}
