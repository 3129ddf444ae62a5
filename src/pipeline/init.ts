import { ErserverError } from "../errors/erserver-error.ts";
import { type CommandOptions, contextOf } from "./context.ts";
import { occupiedProblem } from "./first-copy.ts";
import type { Problem } from "./limits.ts";
import { openPipeline } from "./open-pipeline.ts";
import { connectSides } from "./sides.ts";

/** Makes the objects on both sides that are not there yet; `changes` names them. A target that is being served is left alone. */
export async function initPipeline(
  options: CommandOptions,
): Promise<{ changes: readonly string[]; problems: readonly Problem[] }> {
  const context = contextOf(options);
  try {
    await using open = await openPipeline(context);
    const { made, changes } = open;
    const occupied = await occupiedProblem(open);
    const problems = [...open.problems, ...(occupied === undefined ? [] : [occupied])];
    if (open.progress !== undefined) return { changes: made, problems };
    const { holder } = await changes.takeSnapshot(undefined);
    await holder.end();
    const beginning = changes.kind === "wal" ? [`replication slot ${open.slot} on the source`] : [];
    return { changes: [...made, ...beginning], problems };
  } catch (error) {
    if (!(error instanceof ErserverError) || error.code !== "ERS-508") throw error;
    // Whoever serves the target may not have got as far as its slot: a source that is away is told here too.
    await using sides = await connectSides(options);
    if ((await sides.registration()) === undefined || (await sides.store.progress()) === undefined)
      throw error;
    return { changes: [], problems: [] };
  }
}
