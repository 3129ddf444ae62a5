import { describe, expect, test } from "vitest";
import { judgeSilence, type LivenessAction } from "./liveness.ts";

const base = { nowMs: 100_000, lastAskedMs: 0, paused: false, timeoutMs: 30_000 };

describe("silence", () => {
  test.for([
    [0, "none"],
    [14_999, "none"],
    [15_000, "ask"],
    [29_999, "ask"],
    [30_000, "dead"],
    [1_000_000, "dead"],
  ] as const)("of %i ms with a timeout of 30 s: %s", ([silentMs, action]) => {
    expect(judgeSilence({ ...base, lastHeardMs: base.nowMs - silentMs })).toBe<LivenessAction>(action);
  });

  test("that was asked about is not asked about again before another half of the timeout", () => {
    const silent = { ...base, lastHeardMs: base.nowMs - 20_000 };
    expect(judgeSilence({ ...silent, lastAskedMs: base.nowMs - 14_999 })).toBe("none");
    expect(judgeSilence({ ...silent, lastAskedMs: base.nowMs - 15_000 })).toBe("ask");
  });

  test("says nothing while we do not read ourselves", () => {
    expect(judgeSilence({ ...base, lastHeardMs: 0, paused: true })).toBe("none");
  });
});
