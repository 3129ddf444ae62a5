import { describe, expect, test } from "vitest";
import { lags } from "./lag.ts";

describe("lags", () => {
  test("run from the statement to the first look that saw the row", () => {
    const written = [
      { id: 1, at: 10 },
      { id: 2, at: 11 },
    ];
    const seen = [
      { id: 1, at: 12 },
      { id: 2, at: 14 },
    ];
    expect(lags(written, seen)).toEqual([2, 3]);
  });

  test("end for all rows that one look saw at once", () => {
    const written = [
      { id: 1, at: 10 },
      { id: 2, at: 11 },
      { id: 3, at: 12 },
    ];
    expect(lags(written, [{ id: 3, at: 13 }])).toEqual([3, 2, 1]);
  });

  test("end with the watcher that was first", () => {
    const seen = [
      { id: 2, at: 15 },
      { id: 1, at: 12 },
      { id: 2, at: 13 },
    ];
    expect(lags([{ id: 2, at: 10 }], seen)).toEqual([3]);
  });

  test("are refused for a row that nobody saw", () => {
    expect(() => lags([{ id: 5, at: 10 }], [{ id: 4, at: 11 }])).toThrow("row 5");
  });
});
