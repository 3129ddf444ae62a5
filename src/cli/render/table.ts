import { type Paint, padEnd, padStart, widthOf } from "./paint.ts";

export interface Column {
  readonly head: string;
  /** Numbers are read from the right. */
  readonly align?: "right";
}

const GAP = "  ";

/** A table without lines: columns as wide as their widest cell, the head faint. Ends with a newline. */
export function renderTable(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  paint: Paint,
): string {
  const widths = columns.map(({ head }, index) =>
    Math.max(widthOf(head), ...rows.map((row) => widthOf(row[index] ?? ""))),
  );
  const line = (cells: readonly string[]): string =>
    columns
      .map(({ align }, index) => {
        const [cell = "", width = 0] = [cells[index], widths[index]];
        return align === "right" ? padStart(cell, width) : padEnd(cell, width);
      })
      .join(GAP)
      .trimEnd();
  const head = line(columns.map((column) => column.head));
  return [paint.faint(head), ...rows.map(line)].map((text) => `${text}\n`).join("");
}
