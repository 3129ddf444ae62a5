import { expect, test } from "vitest";
import { recordingTerminal } from "../../../test/support/recording-terminal.ts";
import { DemoScreen } from "./demo-screen.ts";

function play(live: boolean): readonly string[] {
  const terminal = recordingTerminal({ live, columns: 40 });
  const screen = new DemoScreen(terminal);
  screen.title("A demo");
  screen.step("First");
  screen.now([{ server: "london", text: "1 applied" }]);
  screen.now([{ server: "london", text: "2 applied" }]);
  screen.fact({ server: "london", text: "3 applied", mood: "good" });
  screen.note("a table has no row identity at all (ERS-704)", "warning");
  screen.step("Second");
  screen.table([
    ["table", "london"],
    ["public.customer", "equal"],
  ]);
  screen.note("a line that is to be copied is never broken at all");
  return terminal.screen;
}

test("steps are numbered, facts aligned, and what was going on is gone; with and without a terminal", () => {
  const lines = [
    "A demo",
    "",
    "1  First",
    "   london    3 applied",
    "   a table has no row identity at all",
    "   (ERS-704)",
    "",
    "2  Second",
    "   table            london",
    "   public.customer   equal",
    "",
    "a line that is to be copied is never broken at all",
    "",
  ];
  expect(play(true)).toEqual(lines);
  expect(play(false)).toEqual(lines);
});
