import { type Document, isMap, isNode, isScalar, LineCounter, parseDocument, visit } from "yaml";
import type { Path } from "./issues.ts";

/** Line and column, counted from 1. */
export interface Position {
  readonly line: number;
  readonly column: number;
}

export interface SyntaxProblem {
  /** Not YAML, or YAML that no configuration can be. */
  readonly code: "ERS-102" | "ERS-103";
  readonly position: Position;
  readonly message: string;
}

const PARSE_OPTIONS = {
  // Pretty errors quote the line, and warnings the key, which may hold a password.
  prettyErrors: false,
  logLevel: "error",
  // Nothing but text, numbers, lists and mappings: a set or a date would pass for a mapping without keys, and a connection without
  // keys is libpq's default one.
  schema: "core",
  resolveKnownTags: false,
  stringKeys: true,
} as const;

/** The schema has 5 levels, and no file is far from it. What recurses through its values must come to an end. */
const MOST_LEVELS = 32;

const TOO_DEEP =
  "lists and mappings are nested too deeply, or an alias (*…) stands inside of what it repeats";

/** Instead of the parser's messages that are unclear, or that repeat text of the file, which may be a password. */
const OWN_MESSAGES: Readonly<Record<string, string>> = {
  BAD_DIRECTIVE: "a line that begins with % is an instruction to the YAML parser, and this one is not known",
  BAD_DQ_ESCAPE: "an escape sequence in double quotes is not valid: use single quotes for plain text",
  DUPLICATE_KEY: "a key stands twice in the same mapping",
  MULTIPLE_DOCS: "a second document begins: the file must hold one",
  NON_STRING_KEY: "a key must be plain text",
  RESOURCE_EXHAUSTION: TOO_DEEP,
  TAG_RESOLVE_FAILED: "a tag (!…) is not known or does not fit its value",
  UNEXPECTED_TOKEN: "something does not belong here: check quotes, brackets and indentation",
};

const CONTENT_ERRORS: ReadonlySet<string> = new Set(["DUPLICATE_KEY", "NON_STRING_KEY"]);

/** A YAML file that remembers where its values stand. */
export class YamlDocument {
  readonly #document: Document;
  readonly #lines = new LineCounter();
  readonly problems: readonly SyntaxProblem[];
  /** Plain data; undefined when there are problems, or nothing in the file. */
  readonly value: unknown;

  constructor(text: string) {
    this.#document = parseDocument(text, { ...PARSE_OPTIONS, lineCounter: this.#lines });
    const problems = this.#parserProblems();
    if (problems.length === 0) problems.push(...this.#keyProblems());
    if (problems.length === 0) {
      try {
        const value: unknown = this.#document.toJS() ?? undefined;
        const deep = findTooDeep(value);
        if (deep === undefined) this.value = value;
        else problems.push({ code: "ERS-102", position: this.positionOf(deep), message: TOO_DEEP });
      } catch {
        const message = "an alias has no anchor, or there are too many";
        problems.push({ code: "ERS-102", position: this.#at(0), message });
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

  #parserProblems(): SyntaxProblem[] {
    const found = [...this.#document.errors, ...this.#document.warnings];
    // Where the parser gives up, it calls every bracket outside of it wrong.
    const gaveUp = found.find(({ code }) => code === "RESOURCE_EXHAUSTION");
    return (gaveUp === undefined ? found : [gaveUp]).map(({ code, message, pos }) => ({
      code: CONTENT_ERRORS.has(code) ? "ERS-103" : "ERS-102",
      position: this.#at(pos[0]),
      message: OWN_MESSAGES[code] ?? message,
    }));
  }

  /** Keys that are YAML, but lead astray who reads the mapping. */
  #keyProblems(): SyntaxProblem[] {
    const problems: SyntaxProblem[] = [];
    visit(this.#document, {
      Pair: (_, { key, value }) => {
        if (!isScalar(key)) return;
        let message: string;
        // Not repeated: in { password: a,b } it is the rest of the password.
        if (value === null) message = "a key has no value: put text that holds a comma in quotes";
        // zod leaves it out of what it checks, because of its meaning in JavaScript.
        else if (key.value === "__proto__") message = '"__proto__" cannot be a key or a name';
        else return;
        problems.push({ code: "ERS-103", position: this.#at(key.range?.[0] ?? 0), message });
      },
    });
    return problems;
  }

  #at(offset: number): Position {
    const { line, col } = this.#lines.linePos(offset);
    return { line: Math.max(line, 1), column: Math.max(col, 1) };
  }
}

/** The path of the first value below too many levels; without end are those of an alias inside of its own anchor. */
function findTooDeep(value: unknown, path: Path = []): Path | undefined {
  if (path.length > MOST_LEVELS) return path;
  if (typeof value !== "object" || value === null) return undefined;
  for (const [key, item] of Object.entries(value)) {
    const found = findTooDeep(item, [...path, key]);
    if (found !== undefined) return found;
  }
  return undefined;
}
