import { expect, test } from "vitest";
import { quoteLiteral } from "./literal.ts";

test.each([
  ["", "''"],
  ["it's", "'it''s'"],
  ["a\\b", "E'a\\\\b'"],
  ["\\'", "E'\\\\'''"],
  ["line\nbreak", "'line\nbreak'"],
])("%j becomes %s", (text, quoted) => expect(quoteLiteral(text)).toBe(quoted));

test("refuses a NUL character", () => expect(() => quoteLiteral("\0")).toThrow(RangeError));
