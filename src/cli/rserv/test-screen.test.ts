import { expect, test } from "vitest";
import { PLAIN } from "../render/paint.ts";
import { initialScreen, type Key, onKey, renderScreen, type ScreenState } from "./test-screen.ts";

const start = initialScreen("pma@localhost:5432/master", "pma@pma:5432/slave");

function press(state: ScreenState, ...keys: Key[]): ReturnType<typeof onKey> {
  return keys.reduce<ReturnType<typeof onKey>>((last, key) => onKey(last.state, key), { state });
}

const letters = (text: string): Key[] => Array.from(text, (sequence) => ({ sequence }));

test("S43: what is typed is the text, and Enter presses the chosen button", () => {
  const typed = press(start, ...letters("héllo"), { name: "backspace" }, { name: "return" });
  expect(typed).toMatchObject({ state: { text: "héll" }, pressed: "Update" });
  expect(press(typed.state, { name: "tab" }, { name: "return" }).pressed).toBe("Replicate");
  expect(press(typed.state, { name: "left" }, { name: "enter" }).pressed).toBe("Quit");
  expect(press(typed.state, { name: "tab", shift: true }).state.selected).toBe("Quit");
});

test("function keys type nothing; Ctrl-C quits, also while something goes on", () => {
  expect(press(start, { name: "up", sequence: "\u001b[A" }).state.text).toBe("");
  const busy = { ...start, busy: true };
  expect(press(busy, ...letters("x")).state.text).toBe("");
  expect(press(busy, { name: "c", ctrl: true }).pressed).toBe("Quit");
});

test("what the slave shows is n/a until the text has arrived, and unknown once another is typed", () => {
  const line = (state: ScreenState): string =>
    renderScreen(state, PLAIN).find((one) => one.includes("On the slave")) ?? "";
  const typed = { ...start, text: "hello" };
  expect(line(typed)).not.toMatch(/n\/a|hello/);
  expect(line({ ...typed, shown: false })).toMatch(/n\/a$/);
  expect(line({ ...typed, shown: true })).toMatch(/hello$/);
  expect(press({ ...typed, shown: true }, ...letters("!")).state.shown).toBeUndefined();
});

test("a text longer than the field shows its end, and lines stay in the width of a terminal", () => {
  const lines = renderScreen({ ...start, text: "x".repeat(200) + "END" }, PLAIN);
  expect(lines.join("\n")).toContain("END_");
  expect(Math.max(...lines.map((one) => one.length))).toBeLessThanOrEqual(80);
});
