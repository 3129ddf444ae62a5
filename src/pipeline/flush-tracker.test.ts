import { expect, test } from "vitest";
import type { Lsn } from "../change/lsn.ts";
import { FlushTracker } from "./flush-tracker.ts";

const lsn = (position: number): Lsn => BigInt(position) as Lsn;

test("a position counts once the target has flushed to the end of its commit, not before", () => {
  const tracker = new FlushTracker();
  expect(tracker.waiting).toBe(false);
  tracker.committed(lsn(10), lsn(1000));
  tracker.committed(lsn(20), lsn(2000));
  tracker.committed(lsn(30), lsn(3000));
  expect(tracker.waiting).toBe(true);
  tracker.flushed(lsn(999));
  expect(tracker.durableLsn).toBe(0n);
  tracker.flushed(lsn(1000));
  expect(tracker.durableLsn).toBe(10n);
  tracker.flushed(lsn(2999));
  expect(tracker.durableLsn).toBe(20n);
  expect(tracker.waiting).toBe(true);
  tracker.flushed(lsn(5000));
  expect(tracker.durableLsn).toBe(30n);
  expect(tracker.waiting).toBe(false);
});

test("what was flushed before says nothing about a later commit", () => {
  const tracker = new FlushTracker();
  tracker.flushed(lsn(500));
  tracker.committed(lsn(10), lsn(600));
  tracker.flushed(lsn(500));
  expect(tracker.durableLsn).toBe(0n);
  expect(tracker.waiting).toBe(true);
});
