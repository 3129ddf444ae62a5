import { readFileSync, readdirSync } from "node:fs";
import path from "node:path";
import { describe, expect, test } from "vitest";

/** A folder imports from itself and from the layers before it, never from a sibling of its own layer. */
const LAYERS = [
  ["change", "errors", "runtime", "observability"],
  ["quote", "pgoutput", "wire", "config"],
  ["postgres"],
  ["store"],
  ["capture", "capture/wal", "capture/trigger", "apply", "copy", "transport", "carrier"],
  ["pipeline", "check"],
  ["verify"],
  ["server", "demo", "rserv"],
  ["index.ts"],
  ["cli"],
];

/** Folders that do no input or output. */
const PURE = ["change", "pgoutput"];

const IMPORT = /^(?:import|export)\b[^;]*?\bfrom\s*"([^"]+)"|^import\s*"([^"]+)"|\bimport\(\s*"([^"]+)"/gm;
const RE_EXPORT = /^export\s+(?:type\s+)?(?:\*|\{)[^;]*?\bfrom\s*"/m;
const CONSOLE = /^(?!\s*(?:\*|\/\/|\/\*)).*\bconsole\./m;

function folderOf(file: string): string {
  const [first = "", second = ""] = file.split("/");
  const nested = `${first}/${second}`;
  return LAYERS.flat().includes(nested) ? nested : first;
}

const layerOf = (folder: string): number => LAYERS.findIndex((layer) => layer.includes(folder));

function mayImport(from: string, to: string): boolean {
  if (layerOf(from) === -1 || layerOf(to) === -1) return false;
  // An implementation knows the interface in the folder above it.
  return from === to || from.startsWith(`${to}/`) || layerOf(to) < layerOf(from);
}

/** What is wrong with a file of src; `file` is its path below src. */
function violations(file: string, text: string): string[] {
  const from = folderOf(file);
  const found: string[] = [];
  for (const match of text.matchAll(IMPORT)) {
    const imported = match[1] ?? match[2] ?? match[3] ?? "";
    if (imported.startsWith(".")) {
      const to = folderOf(path.posix.join(path.posix.dirname(file), imported));
      if (!mayImport(from, to)) found.push(`${file}: ${from} may not import ${to}`);
    } else if (PURE.includes(from) && imported !== "node:buffer") {
      found.push(`${file}: ${from} may not import ${imported}`);
    }
  }
  if (from !== "index.ts" && RE_EXPORT.test(text)) found.push(`${file}: only index.ts re-exports`);
  if (from !== "cli" && CONSOLE.test(text)) found.push(`${file}: only cli writes to the console`);
  return found;
}

test("the folders of src import downwards only", () => {
  const root = path.join(import.meta.dirname, "../src");
  const files = readdirSync(root, { recursive: true, encoding: "utf8" }).filter((file) =>
    /(?<!\.test)\.ts$/.test(file),
  );
  expect(files.length).toBeGreaterThan(10);
  expect(files.flatMap((file) => violations(file, readFileSync(path.join(root, file), "utf8")))).toEqual([]);
});

describe("the check sees", () => {
  test.for([
    ["an import upwards", "apply/a.ts", 'import { x } from "../pipeline/p.ts";'],
    ["an import sideways", "apply/a.ts", 'import type { x } from "../capture/capture.ts";'],
    ["an import over several lines", "wire/a.ts", 'import {\n  x,\n  y,\n} from "../config/c.ts";'],
    ["an import for its effect", "errors/a.ts", 'import "../config/c.ts";'],
    ["an import at run time", "store/a.ts", '  const x = await import("../apply/a.ts");'],
    ["one capture in the other", "capture/wal/a.ts", 'import { x } from "../trigger/t.ts";'],
    ["an implementation in its interface", "capture/capture.ts", 'import { x } from "./wal/w.ts";'],
    ["postgres importing store", "postgres/a.ts", 'import { x } from "../store/s.ts";'],
    ["a folder of no layer", "utils/a.ts", 'import { x } from "../errors/e.ts";'],
    ["input and output in change", "change/a.ts", 'import { x } from "node:fs";'],
    ["a package in pgoutput", "pgoutput/a.ts", 'import { x } from "pg";'],
    ["a re-export", "apply/a.ts", 'export type { X } from "./x.ts";'],
    ["the console", "apply/a.ts", "  console.log(1);"],
  ] as const)("%s", ([, file, text]) => {
    expect(violations(file, text)).toHaveLength(1);
  });

  test.for([
    ["an import downwards", "store/a.ts", 'import { x } from "../postgres/p.ts";\nimport pg from "pg";'],
    ["a neighbour", "capture/wal/a.ts", 'import { x } from "./b.ts";'],
    ["an interface above", "capture/wal/a.ts", 'import type { x } from "../capture.ts";'],
    ["Buffer", "pgoutput/a.ts", 'import type { Buffer } from "node:buffer";'],
    ["the public re-exports", "index.ts", 'export { x } from "./pipeline/p.ts";'],
    ["the console in a comment", "apply/a.ts", "// not to the console.\n"],
    ["an ordinary export", "apply/a.ts", 'export const from = "x";\nexport { from };'],
  ] as const)("nothing wrong in %s", ([, file, text]) => {
    expect(violations(file, text)).toEqual([]);
  });
});
