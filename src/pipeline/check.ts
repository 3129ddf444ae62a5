import { absentRoles } from "../postgres/roles.ts";
import { sequencesLeftOut } from "../postgres/sequences.ts";
import { type CommandOptions, contextOf } from "./context.ts";
import type { Problem } from "./limits.ts";
import { checkPipeline } from "./open-pipeline.ts";
import { connectPrimary } from "./sides.ts";

/** What replication does not bring: roles of the source's objects that the target lacks, and values of sequences. */
export async function notReplicated(options: CommandOptions): Promise<readonly Problem[]> {
  await using source = await connectPrimary(options, "source");
  await using target = await connectPrimary(options, "target");
  return [...(await absentRoles(source, target)), ...(await sequencesLeftOut(source))];
}

/** Throws what keeps the target from being replicated to; returns what an operator should know. Changes nothing. */
export async function checkTarget(options: CommandOptions): Promise<readonly Problem[]> {
  return checkPipeline(contextOf(options));
}
