import { expect, test } from "vitest";
import { parseSlotName, slotNameFor } from "./slot-name.ts";

test("a plain target name is the slot's name", () =>
  expect(slotNameFor("london_2")).toBe("erserver_london_2"));

test.each(["London", "new-york", "x".repeat(60), "", "東京"])(
  "the slot of %j is valid and marked by a hash",
  (target) => {
    const slot = slotNameFor(target);
    expect(parseSlotName(slot)).toBe(slot);
    expect(slot).toMatch(/^erserver_.*_[0-9a-f]{8}$/);
  },
);

test("names that look alike get slots of their own", () => {
  const targets = ["a-b", "a_b", "A_b", "a.b", "a b", "x".repeat(60), "x".repeat(61), `${"x".repeat(60)}y`];
  expect(new Set(targets.map(slotNameFor)).size).toBe(targets.length);
});

test("the same target always gets the same slot", () =>
  expect(slotNameFor("New York")).toBe("erserver_new_york_815eca97"));

test.each(["", "Upper", "a-b", "x".repeat(64)])("%j is not a slot name", (text) =>
  expect(() => parseSlotName(text)).toThrow(RangeError),
);
