import type { Config, TargetConfig } from "../config/config.ts";
import type { Logger } from "../observability/log.ts";
import type { SessionOptions } from "../postgres/connect.ts";

/** What a command about one target gets. */
export interface CommandOptions {
  readonly config: Config;
  readonly target: TargetConfig;
  readonly log: Logger;
  /** Gives up what waits for a server. */
  readonly signal?: AbortSignal;
}

export interface PipelineContext extends CommandOptions {
  /** Backends that sessions of this process had, in case a server still thinks they live. */
  readonly ownBackends: { readonly source: Set<number>; readonly target: Set<number> };
  /** How often a transaction could not be written in progress, and until when, by performance.now(), none is to be. */
  readonly streaming: { refusals: number; refusedUntilMs: number };
}

export function contextOf(options: CommandOptions): PipelineContext {
  return {
    ...options,
    log: options.log.child({ pipeline: options.target.name }),
    ownBackends: { source: new Set(), target: new Set() },
    streaming: { refusals: 0, refusedUntilMs: Number.NEGATIVE_INFINITY },
  };
}

/** Of every session that a pipeline opens for itself. */
export function sessionOptions({ config, target, signal }: PipelineContext): SessionOptions {
  return {
    applicationName: `erserver ${target.name}`,
    timeoutMs: config.timeoutMs,
    ...(signal === undefined ? {} : { signal }),
  };
}
