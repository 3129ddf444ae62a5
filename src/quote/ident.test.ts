import { describe, expect, test } from "vitest";
import { quoteIdent, quoteQualified } from "./ident.ts";

describe("quoteIdent", () => {
  test.each([
    ["employee", '"employee"'],
    ["select", '"select"'],
    ["Order Lines", '"Order Lines"'],
    ['a"b', '"a""b"'],
    ["a.b", '"a.b"'],
    ["é".repeat(63), `"${"é".repeat(63)}"`],
  ])("%s becomes %s", (name, quoted) => expect(quoteIdent(name)).toBe(quoted));

  test.each([
    ["the empty name", ""],
    ["a NUL character", "a\0b"],
  ])("refuses %s", (_, name) => expect(() => quoteIdent(name)).toThrow(RangeError));

  test("a qualified name quotes both parts", () =>
    expect(quoteQualified("My Schema", "T.x")).toBe('"My Schema"."T.x"'));
});
