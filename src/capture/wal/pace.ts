/** Messages a millisecond from which on reading pauses: fewer are a source that is hardly busy, and are read at once. */
const MANY = 4;

const LONGEST_REST_MS = 10;

/**
 * How long not to read, in milliseconds, after `messages` have come in `elapsedMs`; `lastMs` was the rest before.
 *
 * A WAL sender makes one send() for each row, which wakes whoever waits for it. Reading only now and then lets it write into the
 * socket's buffer, with nobody to wake: 800,000 changes took its processor 6.4 s and ours 3.9 s when they were read at once, 2.0 s and
 * 0.25 s with rests of 10 ms, which 30 ms did not better (docs/adr/0010-rests-between-reads.md). Rests grow step by step, so that
 * a single large transaction is not late by more than it takes, and are no longer than the rate is worth: a millisecond for each
 * message a millisecond above MANY.
 */
export function restMs(messages: number, elapsedMs: number, lastMs: number): number {
  const beyond = Math.floor(messages / elapsedMs - MANY);
  return beyond <= 0 ? 0 : Math.min(Math.max(1, lastMs * 2), beyond, LONGEST_REST_MS);
}
