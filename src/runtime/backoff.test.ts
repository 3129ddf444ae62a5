import { expect, test } from "vitest";
import { backoffDelay, logLevelForAttempt } from "./backoff.ts";

const options = { base: 200, max: 30_000 };

test.each([
  [1, 100],
  [2, 200],
  [3, 400],
  [8, 12_800],
  [9, 15_000],
  [5000, 15_000],
])("the middle of the jitter of attempt %i is %i ms", (attempt, delay) => {
  expect(backoffDelay(attempt, { ...options, random: () => 0.5 })).toBe(delay);
});

test("the jitter reaches from nothing to just below the bound", () => {
  expect(backoffDelay(3, { ...options, random: () => 0 })).toBe(0);
  expect(backoffDelay(3, { ...options, random: () => 0.999_999 })).toBe(799);
});

test("the log level rises from info to warn to error and never falls", () => {
  const rank = { info: 0, warn: 1, error: 2 };
  const ranks = Array.from({ length: 30 }, (_, index) => rank[logLevelForAttempt(index + 1)]);
  expect(ranks).toEqual(ranks.toSorted((a, b) => a - b));
  expect(new Set(ranks)).toEqual(new Set([0, 1, 2]));
});
