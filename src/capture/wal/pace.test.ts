import { describe, expect, test } from "vitest";
import { restMs } from "./pace.ts";

const restsAt = (messagesPerMs: number): number[] => {
  const rests: number[] = [];
  for (let last = 0; rests.length < 7; rests.push(last)) last = restMs(messagesPerMs * 10, 10, last);
  return rests;
};

describe("reading", () => {
  test("goes on at once while a source is hardly busy: 500 transactions of six messages a second", () => {
    expect(restMs(3 * 4, 4, 0)).toBe(0);
    expect(restMs(1, 1_000, 0)).toBe(0);
  });

  test("rests longer step by step while messages come in numbers", () => {
    expect(restsAt(1_000)).toEqual([1, 2, 4, 8, 10, 10, 10]);
  });

  test("rests for as long as the rate is worth", () => {
    expect(restsAt(6)).toEqual([1, 2, 2, 2, 2, 2, 2]);
    expect(restsAt(15)).toEqual([1, 2, 4, 8, 10, 10, 10]);
  });

  test("goes on at once again when fewer come", () => {
    expect(restMs(30, 10, 10)).toBe(0);
  });
});
