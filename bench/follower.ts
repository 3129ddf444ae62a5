import { setTimeout as sleep } from "node:timers/promises";

/** What brings a source's changes to a target. */
export interface Follower extends AsyncDisposable {
  /** Begins to follow, the first time by the first copy. Returns at once. */
  start(): Promise<void>;
  /** Ends following and waits until nothing of it is at work. */
  stop(): Promise<void>;
  /** How many tables have their first copy committed, or are also past it in step with the others. */
  tables(state: "copied" | "ready"): Promise<number>;
  /** Peak resident memory so far, in MB; undefined when it cannot be told. */
  peakMemory(): number | undefined;
  /** Throws when it has ended by itself. */
  assertRunning(): void;
}

/** Longer than any scenario takes, also on a slow disk. */
const TIMEOUT_MS = 60 * 60_000;

/** Asks again and again, `interval` ms apart, until it is so. */
export async function waitUntil(
  follower: Follower,
  what: string,
  interval: number,
  condition: () => Promise<boolean>,
): Promise<void> {
  const deadline = Date.now() + TIMEOUT_MS;
  while (!(await condition())) {
    follower.assertRunning();
    if (Date.now() > deadline) throw new Error(`waited an hour for ${what}`);
    await sleep(interval);
  }
}
