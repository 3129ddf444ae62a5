import { ErserverError } from "../errors/erserver-error.ts";
import { onAbort } from "../runtime/abort.ts";
import { PipelineStore, type Registration } from "../store/pipeline-store.ts";
import type { CommandOptions } from "./context.ts";
import { connectPrimary, readRegistration } from "./sides.ts";

/** Leaves the wish on the target, where a replicator finds it, now or later. False when it stood there already. */
export async function setDesired(options: CommandOptions, desired: "running" | "paused"): Promise<boolean> {
  await using target = await connectPrimary(options, "target");
  using _giveUp = onAbort(options.signal, () => target.destroy());
  const { name } = options.target;
  const registration = await readRegistration(target, options);
  if (registration === undefined) throw notInitialized(name);
  if (registration.desired === desired) return false;
  await new PipelineStore(target, name).setDesired(desired);
  return true;
}

/** Throws ERS-803: a target that is paused gets nowhere. */
export function refusePaused(registration: Registration | undefined, name: string): void {
  if (registration?.desired !== "paused") return;
  throw new ErserverError("ERS-803", `target ${name} is paused`, {
    subject: name,
    remedy: `Let it go on: erserver resume --target ${name}`,
  });
}

export function notInitialized(name: string): ErserverError {
  return new ErserverError("ERS-407", `target ${name} holds no state of this pipeline`, {
    subject: name,
    remedy: "Start replication first: erserver run (or erserver init to prepare it only).",
  });
}
