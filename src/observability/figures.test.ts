import { expect, test } from "vitest";
import { formatBytes, formatCount, formatDuration, plural } from "./figures.ts";

test.each([
  [-5, "0 ms"],
  [0.4, "0 ms"],
  [12.6, "13 ms"],
  [999.4, "999 ms"],
  [999.6, "1.0 s"],
  [4_230, "4.2 s"],
  [59_940, "59.9 s"],
  [59_960, "1 min"],
  [200_000, "3 min 20 s"],
  [3_599_600, "1 h"],
  [7_500_000, "2 h 5 min"],
  [86_399_400, "23 h 59 min"],
  [273_600_000, "3 d 4 h"],
])("%d ms read as %s", (ms, text) => {
  expect(formatDuration(ms)).toBe(text);
});

test.each([
  [0, "0 B"],
  [1023, "1023 B"],
  [1024, "1.0 kB"],
  [1536, "1.5 kB"],
  [10_189, "10 kB"],
  [1_048_575, "1.0 MB"],
  [25_165_824, "24 MB"],
  [5 * 2 ** 40, "5.0 TB"],
  [2 ** 62, "4096 PB"],
])("%d bytes read as %s", (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});

test("counts have their thousands apart, and a noun in its number", () => {
  expect([0, 999, 1000, 1234567].map(formatCount)).toEqual(["0", "999", "1,000", "1,234,567"]);
  expect([plural(1, "row"), plural(0, "row"), plural(1200, "row")]).toEqual([
    "1 row",
    "0 rows",
    "1,200 rows",
  ]);
});
