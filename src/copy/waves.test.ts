import { expect, test } from "vitest";
import { copyWaves } from "./waves.ts";

const waves = (tables: string, references: readonly string[]): string[] =>
  copyWaves(
    tables.split(""),
    (table) => table,
    references.map((pair) => ({ from: pair[0] as string, to: pair[1] as string })),
  ).map((wave) => wave.join(""));

test("tables without references are copied at once, in the order given", () => {
  expect(waves("cab", [])).toEqual(["cab"]);
  expect(waves("", [])).toEqual([]);
});

test("a table waits for those that it refers to, but not for itself or for tables that are not copied", () => {
  expect(waves("abcd", ["ab", "bc", "dc", "aa", "cx"])).toEqual(["c", "bd", "a"]);
});

test("tables that refer to each other in a circle come last, with those that refer to them", () => {
  expect(waves("abcd", ["ab", "ba", "ca"])).toEqual(["d", "abc"]);
});
