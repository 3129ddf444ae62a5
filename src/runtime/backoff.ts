export interface BackoffOptions {
  /** Upper bound of the first delay, in milliseconds. */
  readonly base: number;
  /** Upper bound of every delay, in milliseconds. */
  readonly max: number;
  /** Uniform in [0, 1), such as Math.random. */
  readonly random: () => number;
}

/**
 * How long to wait before retry number `attempt` (1 is the first), in milliseconds: exponential with full jitter, so that many
 * pipelines that lost the same server do not come back at the same moment.
 * https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
 */
export function backoffDelay(attempt: number, { base, max, random }: BackoffOptions): number {
  const ceiling = Math.min(max, base * 2 ** Math.max(0, attempt - 1));
  return Math.floor(random() * ceiling);
}

/** A blip is news, a minute without the server is a warning, longer than that is for somebody to look at. */
export function logLevelForAttempt(attempt: number): "info" | "warn" | "error" {
  if (attempt <= 2) return "info";
  return attempt <= 8 ? "warn" : "error";
}
