import { type Document, isMap, isNode, isScalar, LineCounter, parseDocument } from "yaml";
import type { Path } from "./issues.ts";

/** Line and column, counted from 1. */
export interface Position {
  readonly line: number;
  readonly column: number;
}

export interface SyntaxProblem {
  readonly position: Position;
  readonly message: string;
  readonly duplicateKey: boolean;
}

/** Instead of the parser's messages that are unclear, or that repeat text of the file, which may be a password. */
const OWN_MESSAGES: Readonly<Record<string, string>> = {
  BAD_DQ_ESCAPE: "an escape sequence in double quotes is not valid: use single quotes for plain text",
  DUPLICATE_KEY: "a key stands twice in the same mapping",
  MULTIPLE_DOCS: "a second document begins: the file must hold one",
  TAG_RESOLVE_FAILED: "a tag (!…) is not known or does not fit its value",
  UNEXPECTED_TOKEN: "something does not belong here: check quotes, brackets and indentation",
};

/** A YAML file that remembers where its values stand. */
export class YamlDocument {
  readonly #document: Document;
  readonly #lines = new LineCounter();
  readonly problems: readonly SyntaxProblem[];
  /** Plain data; undefined when there are problems, or nothing in the file. */
  readonly value: unknown;

  constructor(text: string) {
    // Pretty errors quote the line, which may hold a password.
    const document = parseDocument(text, { lineCounter: this.#lines, prettyErrors: false });
    this.#document = document;
    const problems = [...document.errors, ...document.warnings].map(
      ({ code, message, pos }): SyntaxProblem => ({
        position: this.#at(pos[0]),
        message: OWN_MESSAGES[code] ?? message,
        duplicateKey: code === "DUPLICATE_KEY",
      }),
    );
    if (problems.length === 0) {
      try {
        this.value = document.toJS() ?? undefined;
      } catch {
        problems.push({
          position: this.#at(0),
          message: "an alias has no anchor, or there are too many",
          duplicateKey: false,
        });
      }
    }
    this.problems = problems;
  }

  /** Where the value at a path stands, or else the nearest thing around it. With `key`: that key of the mapping at the path. */
  positionOf(path: Path, key?: string): Position {
    const node = path.length === 0 ? this.#document.contents : this.#document.getIn(path, true);
    if (key !== undefined && isMap(node)) {
      const pair = node.items.find((item) => isScalar(item.key) && String(item.key.value) === key);
      if (isNode(pair?.key) && pair.key.range) return this.#at(pair.key.range[0]);
    }
    if (isNode(node) && node.range) return this.#at(node.range[0]);
    return path.length === 0 ? this.#at(0) : this.positionOf(path.slice(0, -1), String(path.at(-1)));
  }

  #at(offset: number): Position {
    const { line, col } = this.#lines.linePos(offset);
    return { line: Math.max(line, 1), column: Math.max(col, 1) };
  }
}
