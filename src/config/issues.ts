import type { z } from "zod";
import { isConninfoKeyword } from "./conninfo-keywords.ts";
import { didYouMean } from "./did-you-mean.ts";
import { type JsonSchema, knownKeys } from "./json-schema.ts";

export type Path = readonly PropertyKey[];

export function isConninfoPath(path: Path): boolean {
  return path.length === 1 ? path[0] === "source" : path.length === 2 && path[0] === "targets";
}

/** A schema issue in the operator's words. */
export interface Finding {
  /** What it is about, from the root of the file. */
  readonly path: Path;
  /** A key to point at instead of the value at `path`. */
  readonly key?: string;
  readonly message: string;
}

const KINDS: Readonly<Record<string, string>> = {
  string: "text",
  number: "a number",
  int: "a whole number",
  boolean: "true or false",
  array: "a list",
  object: "a mapping",
  record: "a mapping",
};

/** Words the issues of the schema; `valueAt` tells a missing value from a wrong one. No message repeats a value that may be a secret. */
export function describeIssues(
  issues: readonly z.core.$ZodIssue[],
  schema: JsonSchema,
  valueAt: (path: Path) => unknown,
): Finding[] {
  const describe = (issue: z.core.$ZodIssue, base: Path): Finding[] => {
    const path = [...base, ...issue.path];
    switch (issue.code) {
      case "unrecognized_keys":
        return issue.keys.map((key) => {
          const hint = didYouMean(key, knownKeys(schema, path) ?? []);
          return { path, key, message: `unknown key ${showKey(key)}.${hint}` };
        });
      case "invalid_key":
        return [
          {
            path: path.slice(0, -1),
            key: String(path.at(-1)),
            message: `a name ${issue.issues[0]?.message ?? "is not valid"}`,
          },
        ];
      case "invalid_union": {
        const branch = issue.errors.find((nested) => !wrongKind(nested));
        if (branch !== undefined) return branch.flatMap((nested) => describe(nested, path));
        const kinds = issue.errors
          .flat()
          .map((nested) => (nested.code === "invalid_type" ? kind(nested.expected) : ""));
        return [{ path, message: missing(path) ?? `must be ${kinds.join(" or ")}` }];
      }
      case "invalid_type": {
        const own = issue.message.startsWith("Invalid input") ? undefined : issue.message;
        return [{ path, message: missing(path) ?? own ?? `must be ${kind(issue.expected)}` }];
      }
      case "invalid_value":
        return [{ path, message: `must be one of ${issue.values.map(String).join(", ")}` }];
      case "too_small":
        return [
          {
            path,
            message:
              issue.origin === "int" || issue.origin === "number"
                ? `must be at least ${issue.minimum}`
                : issue.message,
          },
        ];
      case "too_big":
        return [
          {
            path,
            message:
              issue.origin === "int" || issue.origin === "number"
                ? `must be at most ${issue.maximum}`
                : issue.message,
          },
        ];
      case "custom":
      case "invalid_element":
      case "invalid_format":
      case "not_multiple_of":
      default:
        return [{ path, message: issue.message }];
    }
  };
  const missing = (path: Path) => (valueAt(path) === undefined && path.length > 0 ? "is missing" : undefined);
  return issues.flatMap((issue) => describe(issue, []));
}

/** The branch of a union that expected another kind of value altogether. */
function wrongKind(issues: readonly z.core.$ZodIssue[]): boolean {
  return issues.every((issue) => issue.code === "invalid_type" && issue.path.length === 0);
}

function kind(expected: string): string {
  return KINDS[expected] ?? expected;
}

/** A key in quotes, or only the word when it is so unlike a key that it may be a misplaced connection string. */
function showKey(key: string): string {
  return /^[\w.* -]{1,40}$/.test(key) ? JSON.stringify(key) : "(not a name)";
}

/** `tables.include[0].columns` */
export function showPath(path: Path): string {
  return path
    .map((step, index) => {
      if (typeof step === "number") return `[${step}]`;
      const inConninfo = isConninfoPath(path.slice(0, index));
      // In a connection it may be the rest of a password, as after a wrong quote.
      const key = inConninfo && !isConninfoKeyword(String(step)) ? "(not a keyword)" : showKey(String(step));
      return (index === 0 ? "" : ".") + (/^"[\w-]+"$/.test(key) ? key.slice(1, -1) : key);
    })
    .join("");
}
