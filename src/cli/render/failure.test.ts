import { expect, test } from "vitest";
import { ErserverError } from "../../errors/erserver-error.ts";
import { describeThrown, TargetFailures } from "./failure.ts";
import { PLAIN } from "./paint.ts";

const away = new ErserverError("ERS-201", "r@h:1/d: no answer", { remedy: "Start it,\nor correct it." });

test("an error is its code, what happened, the detail, and what to do", () => {
  const error = new ErserverError("ERS-701", "refused", { detail: "key 5", remedy: "Remove the row." });
  expect(describeThrown(error, PLAIN)).toEqual({
    exit: 5,
    text: "ERS-701  refused\n  key 5\n  → Remove the row.\n",
  });
  expect(describeThrown(away, PLAIN).text).toBe(
    "ERS-201  r@h:1/d: no answer\n  → Start it,\n    or correct it.\n",
  );
});

test("what nobody foresaw says where it happened", () => {
  const { exit, text } = describeThrown(new TypeError("x is not a function"), PLAIN);
  expect(exit).toBe(5);
  expect(text).toMatch(/^ERS-901 {2}x is not a function\n[^]*failure\.test\.ts/);
});

test("a failure that several targets share is said once, with their names", () => {
  const other = new ErserverError("ERS-404", "not empty", { remedy: "Empty it." });
  const failures = [
    { target: "london", error: away },
    { target: "oslo", error: other },
    { target: "tokyo", error: away },
  ];
  expect(describeThrown(new TargetFailures(failures), PLAIN)).toEqual({
    exit: 3,
    text:
      "ERS-201  london, tokyo: r@h:1/d: no answer\n  → Start it,\n    or correct it.\n" +
      "ERS-404  oslo: not empty\n  → Empty it.\n",
  });
  expect(describeThrown(new TargetFailures(failures, { shown: true }), PLAIN)).toEqual({ exit: 3, text: "" });
});

test("a password never gets to the screen", () => {
  const error = new Error("cannot reach postgres://bob:hunter2@h/db");
  expect(describeThrown(error, PLAIN).text).not.toContain("hunter2");
});
