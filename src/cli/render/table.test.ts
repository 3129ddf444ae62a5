import { expect, test } from "vitest";
import { COLORED, PLAIN } from "./paint.ts";
import { renderTable } from "./table.ts";

const columns = [{ head: "target" }, { head: "rows", align: "right" }, { head: "state" }] as const;

test("columns are as wide as their widest cell, numbers end where they should", () => {
  const rows = [
    ["london", "1,234", "streaming"],
    ["ny", "5", "offline"],
  ];
  expect(renderTable(columns, rows, PLAIN)).toBe(
    ["target   rows  state", "london  1,234  streaming", "ny          5  offline", ""].join("\n"),
  );
});

test("a coloured cell moves nothing, and a missing one is empty", () => {
  const [head, row] = renderTable(columns, [[COLORED.strong("ny"), "5"]], COLORED).split("\n");
  expect(head).toBe(COLORED.faint("target  rows  state"));
  expect(row).toBe(`${COLORED.strong("ny")}         5`);
});
