import { expect, test } from "vitest";
import { copyText } from "../../src/cli/render/pipeline-lines.ts";
import { withoutProgress } from "./progress-lines.ts";

test("takes lines of progress away, and leaves messages", () => {
  const copy = copyText({ tablesDone: 0, tablesTotal: 2, rowsDone: 0, bytesDone: 0, bytesTotal: 9 }, 5000);
  const message = "ERS-801  tokyo: 1 of 2 tables different, now\n";
  expect(withoutProgress(`13:42:24  tokyo: ${copy}\n${message}`)).toBe(message);
  expect(withoutProgress(`1 row, 0 a second\n12,000 rows, 2,400 a second\n${message}`)).toBe(message);
});
