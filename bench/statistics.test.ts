import { describe, expect, test } from "vitest";
import { median, percentile } from "./statistics.ts";

describe("the median", () => {
  test("of an odd number of values is the one in the middle, by size and not by text", () => {
    expect(median([100, 9, 20])).toBe(20);
  });

  test("of an even number of values lies between the two in the middle", () => {
    expect(median([4, 1, 3, 2])).toBe(2.5);
  });

  test("of nothing is refused", () => {
    expect(() => median([])).toThrow(RangeError);
  });

  test("leaves its argument in order", () => {
    const values = [3, 1, 2];
    median(values);
    expect(values).toEqual([3, 1, 2]);
  });
});

describe("a percentile", () => {
  const hundred = Array.from({ length: 100 }, (_, index) => 100 - index);

  test.for([
    [0, 1],
    [0.5, 50],
    [0.99, 99],
    [0.991, 100],
    [1, 100],
  ] as const)("%d of 1 to 100 is %d", ([share, expected]) => {
    expect(percentile(hundred, share)).toBe(expected);
  });

  test("of one value is that value", () => {
    expect(percentile([7], 0.99)).toBe(7);
  });

  test("of nothing is refused", () => {
    expect(() => percentile([], 0.5)).toThrow(RangeError);
  });
});
