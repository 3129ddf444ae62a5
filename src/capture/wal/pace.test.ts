import { describe, expect, test } from "vitest";
import { restMs } from "./pace.ts";

describe("reading", () => {
  test("goes on at once while a source works: 3,000 transactions of six messages a second", () => {
    expect(restMs(18, 1, 0)).toBe(0);
    expect(restMs(1, 1_000, 0)).toBe(0);
  });

  test("rests longer step by step while messages come in numbers", () => {
    const rests: number[] = [];
    for (let last = 0; rests.length < 7; rests.push(last)) last = restMs(10_000, 10, last);
    expect(rests).toEqual([1, 2, 4, 8, 10, 10, 10]);
  });

  test("goes on at once again when fewer come", () => {
    expect(restMs(50, 10, 10)).toBe(0);
  });
});
