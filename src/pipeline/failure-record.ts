import { describeConninfo } from "../config/conninfo.ts";
import type { ErserverError } from "../errors/erserver-error.ts";
import type { PipelineStore, StoredError } from "../store/pipeline-store.ts";
import type { CommandOptions } from "./context.ts";

/** Which side an outage is on. */
export function sideOf({ config }: CommandOptions, error: ErserverError): "source" | "target" {
  return error.subject === describeConninfo(config.source) ||
    (error.code.startsWith("ERS-5") && error.code !== "ERS-508")
    ? "source"
    : "target";
}

/** The error as it is kept and shown; of one that is tried again, with the side that is offline. */
export function storedError(options: CommandOptions, error: ErserverError): StoredError {
  const { code, message, detail, remedy, subject } = error;
  const side = error.entry.retry === "stop" ? undefined : sideOf(options, error);
  return { code, message, detail, remedy, subject, side };
}

/**
 * Whoever reads the target's record must not take a broken pipeline for a running one. For the holder of the pipeline's lock alone;
 * a target that cannot take it changes nothing.
 */
export async function recordFailure(
  store: PipelineStore,
  options: CommandOptions,
  error: ErserverError,
): Promise<void> {
  // What fails because we end is no failure.
  if (options.signal?.aborted === true) return;
  const state = error.entry.retry === "stop" ? "stopped" : "offline";
  await store.setState(state, storedError(options, error)).catch(() => {});
}
