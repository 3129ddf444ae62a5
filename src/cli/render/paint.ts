import { stripVTControlCharacters } from "node:util";

/** Colours by meaning. */
export interface Paint {
  readonly strong: (text: string) => string;
  readonly faint: (text: string) => string;
  readonly good: (text: string) => string;
  readonly warning: (text: string) => string;
  readonly bad: (text: string) => string;
}

const same = (text: string): string => text;

export const PLAIN: Paint = { strong: same, faint: same, good: same, warning: same, bad: same };

/** https://en.wikipedia.org/wiki/ANSI_escape_code#Select_Graphic_Rendition_parameters; what a theme shows on any background. */
const sgr =
  (start: number, end: number) =>
  (text: string): string =>
    text === "" ? "" : `\u001b[${start}m${text}\u001b[${end}m`;

export const COLORED: Paint = {
  strong: sgr(1, 22),
  faint: sgr(2, 22),
  good: sgr(32, 39),
  warning: sgr(33, 39),
  bad: sgr(31, 39),
};

/** Columns that the text takes, colours left out; names in wide scripts take more, which no layout here depends on. */
export function widthOf(text: string): number {
  return Array.from(stripVTControlCharacters(text)).length;
}

export function padEnd(text: string, width: number): string {
  return text + " ".repeat(Math.max(0, width - widthOf(text)));
}

export function padStart(text: string, width: number): string {
  return " ".repeat(Math.max(0, width - widthOf(text))) + text;
}

/** At most `width` columns of the text; a text that is cut loses its colours. */
export function clip(text: string, width: number): string {
  if (widthOf(text) <= width) return text;
  return `${Array.from(stripVTControlCharacters(text))
    .slice(0, Math.max(0, width - 1))
    .join("")}…`;
}

/** Breaks lines between words so that none is wider; a word that is wider stays whole. */
export function wrap(text: string, width: number): string {
  const lines: string[] = [];
  for (const paragraph of text.split("\n")) {
    const start = /^ */.exec(paragraph)?.[0] ?? "";
    let line = start;
    for (const word of paragraph.trim().split(/ +/)) {
      const longer = line.trim() === "" ? line + word : `${line} ${word}`;
      if (widthOf(longer) <= width || line.trim() === "") line = longer;
      else {
        lines.push(line);
        line = start + word;
      }
    }
    lines.push(line);
  }
  return lines.join("\n");
}
