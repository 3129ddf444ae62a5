import { expect, test } from "vitest";
import { recordingTerminal } from "../../../test/support/recording-terminal.ts";
import { LiveBlock } from "./live-block.ts";

test("the block stays below what is printed, on either stream, and leaves nothing when it ends", () => {
  const terminal = recordingTerminal({ live: true });
  const block = new LiveBlock(terminal);
  block.print("first\n");
  block.update(["london 1", "tokyo 1"]);
  block.print("second\n");
  block.update(["london 2"]);
  block.printError("warning\n");
  expect(terminal.screen).toEqual(["first", "second", "warning", "london 2", ""]);
  expect(terminal.errors).toBe("warning\n");
  block.update([]);
  block.print("end\n");
  expect(terminal.screen).toEqual(["first", "second", "warning", "end", ""]);
});

test("a line that would wrap is cut", () => {
  const terminal = recordingTerminal({ live: true, columns: 10 });
  new LiveBlock(terminal).update(["0123456789"]);
  expect(terminal.screen[0]).toBe("01234567…");
});

test("where lines cannot be drawn again there is no block, and no escape sequence", () => {
  const terminal = recordingTerminal();
  const block = new LiveBlock(terminal);
  block.update(["london 1"]);
  block.print("first\n");
  block.update([]);
  expect(terminal.output).toBe("first\n");
});
