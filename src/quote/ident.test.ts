import { describe, expect, test } from "vitest";
import { quoteIdent, quoteQualified } from "./ident.ts";

describe("quoteIdent", () => {
  test.each([
    ["employee", '"employee"'],
    ["select", '"select"'],
    ["Order Lines", '"Order Lines"'],
    ['a"b', '"a""b"'],
    ["a.b", '"a.b"'],
    ["x".repeat(63), `"${"x".repeat(63)}"`],
  ])("%s becomes %s", (name, quoted) => expect(quoteIdent(name)).toBe(quoted));

  test.each([
    ["the empty name", ""],
    ["a NUL character", "a\0b"],
    ["64 bytes", "x".repeat(64)],
    ["32 letters of two bytes", "é".repeat(32)],
  ])("refuses %s", (_, name) => expect(() => quoteIdent(name)).toThrow(RangeError));

  test("a qualified name quotes both parts", () =>
    expect(quoteQualified("My Schema", "T.x")).toBe('"My Schema"."T.x"'));
});
