import { describe, expect, test } from "vitest";
import { isExact, matchesSelector, parseName, parseTablePattern } from "./table-pattern.ts";

describe("a pattern", () => {
  test.each([
    ["public.employee", "public", "employee"],
    ["Public.EMPLOYEE", "public", "employee"],
    ['"My Schema"."T.x"', "My Schema", "T.x"],
    ['public."a""b"', "public", 'a"b'],
    ["public.audit_*", "public", "audit_*"],
    ["*.*", "*", "*"],
    ['public."a*"', "public", "a\\*"],
    ['public.pre"Fix"*', "public", "preFix*"],
    ["public.naïve", "public", "naïve"],
    [`public.${"é".repeat(63)}`, "public", "é".repeat(63)],
  ])("%s is read as its catalogue names", (text, schema, table) =>
    expect(parseTablePattern(text)).toEqual({ schema, table }),
  );

  test.each([
    ["employee", "has no schema"],
    ["a.b.c", "too many dots"],
    ["public.", "empty name"],
    ['public.""', "empty name"],
    ['public."x', "not closed"],
    ["public.a b", 'holds " "'],
    ["public.a?", 'holds "?"'],
    ["public.a; drop table x", 'holds ";"'],
    [`public.${"é".repeat(64)}`, "longer than 63 characters"],
  ])("%s is refused: %s", (text, reason) => expect(() => parseTablePattern(text)).toThrow(reason));
});

describe("matching", () => {
  test.each([
    ["public.*", "public", "employee", true],
    ["public.*", "sales", "employee", false],
    ["public.audit_*", "public", "audit_", true],
    ["public.audit_*", "public", "my_audit_1", false],
    ["*.*_log", "x", "y_log", true],
    ["public.a*c*e", "public", "abcde", true],
    ["public.a*c*e", "public", "abcd", false],
    ['public."a*"', "public", "a*", true],
    ['public."a*"', "public", "ab", false],
    ['public."a\\"', "public", "a\\", true],
    ['public."a.b+"', "public", "a.b+", true],
    ['public."a.b"', "public", "axb", false],
    ["public.*", "public", "with\nline break", true],
    ["public.employee", "public", "Employee", false],
  ])("%s against %s.%s is %s", (text, schema, table, expected) => {
    expect(matchesSelector(parseTablePattern(text), schema, table)).toBe(expected);
  });

  test.each([
    ["public.employee", true],
    ["public.*", false],
    ["p*.employee", false],
    ['public."*"', true],
  ])("%s is exact: %s", (text, expected) => expect(isExact(parseTablePattern(text))).toBe(expected));
});

test("a column name folds unless quoted, and a star in it is a star", () => {
  expect(parseName("Id")).toBe("id");
  expect(parseName('"Id*"')).toBe("Id*");
  expect(() => parseName("a.b")).toThrow(RangeError);
  expect(() => parseName("*")).toThrow(RangeError);
});
