import { expect, test } from "vitest";
import { didYouMean } from "./did-you-mean.ts";

const KEYS = ["source", "targets", "tables", "timeout", "log"];

test.each([
  ["tabels", "tables"],
  ["target", "targets"],
  ["Source", "source"],
  ["lgo", "log"],
])("%s is close to %s", (word, key) => expect(didYouMean(word, KEYS)).toBe(` Did you mean "${key}"?`));

test.each(["x", "database", "logging"])("%s is close to nothing", (word) =>
  expect(didYouMean(word, KEYS)).toBe(""),
);
