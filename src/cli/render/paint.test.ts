import { expect, test } from "vitest";
import { clip, COLORED, padEnd, padStart, PLAIN, widthOf, wrap } from "./paint.ts";

test("colours take no room", () => {
  expect(widthOf(COLORED.good("équal"))).toBe(5);
  expect(padEnd(COLORED.bad("x"), 3)).toBe("\u001b[31mx\u001b[39m  ");
  expect(padStart(COLORED.bad("x"), 3)).toBe("  \u001b[31mx\u001b[39m");
  expect(PLAIN.good("x")).toBe("x");
});

test("a line that is too long is cut, and says so", () => {
  expect(clip(COLORED.bad("offline"), 7)).toBe(COLORED.bad("offline"));
  expect(clip(COLORED.bad("offline"), 4)).toBe("off…");
});

test("lines break between words, keep their indentation, and keep words whole", () => {
  expect(wrap("one two three", 7)).toBe("one two\nthree");
  expect(wrap("a\n  bb cc dd", 7)).toBe("a\n  bb cc\n  dd");
  expect(wrap("incomprehensibilities are rare", 10)).toBe("incomprehensibilities\nare rare");
  expect(wrap("never broken", Number.POSITIVE_INFINITY)).toBe("never broken");
});
