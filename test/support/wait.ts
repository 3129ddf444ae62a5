import { setTimeout as sleep } from "node:timers/promises";
import { inspect } from "node:util";

/**
 * Asks `condition` again and again until it gives something truthy, and returns that. A condition that throws has not come true yet:
 * it may ask a server that is down. Fails with `what` was waited for and what the condition said last.
 */
export async function until<T>(
  condition: () => T | Promise<T>,
  { what, timeout = 30_000, interval = 20 }: { what: string; timeout?: number; interval?: number },
): Promise<NonNullable<T>> {
  const deadline = Date.now() + timeout;
  for (;;) {
    let last: unknown;
    try {
      const value = await condition();
      if (value !== null && value !== undefined && Boolean(value)) return value;
      last = value;
    } catch (error) {
      last = error;
    }
    if (Date.now() >= deadline) {
      throw new Error(
        `waited ${timeout} ms for ${what}; the last answer was ${inspect(last, { breakLength: Infinity })}`,
      );
    }
    await sleep(interval);
  }
}
