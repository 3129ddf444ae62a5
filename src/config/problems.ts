import type { ErrorCode } from "../errors/codes.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { type Path, showPath } from "./issues.ts";
import type { Position, YamlDocument } from "./yaml-document.ts";

interface Problem {
  readonly code: ErrorCode;
  readonly position: Position;
  /** The value that is wrong; undefined when a key or the syntax is. */
  readonly path?: Path;
  readonly message: string;
  readonly remedy?: string;
}

const REMEDY = "Correct the file; docs/reference/config.md describes every key.";

/** Collects what is wrong in one configuration file, to tell it all at once. */
export class Problems {
  readonly #file: string;
  readonly #document: YamlDocument;
  readonly #found: Problem[];

  constructor(file: string, document: YamlDocument) {
    this.#file = file;
    this.#document = document;
    this.#found = [...document.problems];
  }

  /** The value at `path` is wrong. A value that is wrong already is not worth a second complaint. */
  value(code: ErrorCode, path: Path, message: string, remedy?: string): void {
    if (!this.concerns(path))
      this.#add({
        code,
        position: this.#document.positionOf(path),
        path,
        message,
        ...(remedy && { remedy }),
      });
  }

  /** A key of the mapping at `path` is wrong. */
  key(code: ErrorCode, path: Path, key: string, message: string): void {
    this.#add({ code, position: this.#document.positionOf(path, key), message }, path);
  }

  /** Runs something that may throw an ErserverError about the value at `path`. */
  attempt<T>(path: Path, action: () => T): T | undefined {
    try {
      return action();
    } catch (error) {
      if (!(error instanceof ErserverError)) throw error;
      this.value(error.code, path, error.message, error.remedy);
      return undefined;
    }
  }

  /** Whether the value at `path`, or one inside it, is known to be wrong. */
  concerns(path: Path): boolean {
    return this.#found.some(
      (known) => known.path !== undefined && path.every((step, index) => known.path?.[index] === step),
    );
  }

  get any(): boolean {
    return this.#found.length > 0;
  }

  /** One error for all, in the order of the file. Its code is theirs when they agree. */
  toError(): ErserverError {
    const problems = this.#found.toSorted(
      (a, b) => a.position.line - b.position.line || a.position.column - b.position.column,
    );
    const place = ({ position }: Problem) => `${this.#file}:${position.line}:${position.column}`;
    const [first, ...more] = problems;
    const code =
      first !== undefined && more.every((problem) => problem.code === first.code) ? first.code : "ERS-103";
    if (first !== undefined && more.length === 0) {
      const options = { subject: place(first), remedy: first.remedy ?? REMEDY };
      return new ErserverError(code, `${place(first)}: ${first.message}`, options);
    }
    const lines = problems.map((problem) => {
      const remedy = problem.remedy === undefined ? "" : ` (${problem.remedy})`;
      return `  ${place(problem)}: ${problem.message}${remedy}`;
    });
    const message = `${this.#file} has ${problems.length} problems:\n${lines.join("\n")}`;
    return new ErserverError(code, message, { subject: this.#file, remedy: REMEDY });
  }

  #add(problem: Problem, path: Path = problem.path ?? []): void {
    const message = path.length === 0 ? problem.message : `${showPath(path)}: ${problem.message}`;
    this.#found.push({ ...problem, message });
  }
}
