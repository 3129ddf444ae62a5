import { inspect } from "node:util";
import { describe, expect, test, vi } from "vitest";
import { ErserverError } from "../errors/erserver-error.ts";
import type { Config } from "./config.ts";
import { describeConninfo } from "./conninfo.ts";
import type { Environment } from "./environment.ts";
import { loadConfig } from "./load.ts";

const PATH = "etc/erserver.yaml";

function load(
  text: string,
  { env = {}, files = {} }: { env?: Environment["env"]; files?: Record<string, string> } = {},
): Config {
  return loadConfig(PATH, {
    env,
    home: "/home/anna",
    user: "anna",
    exists: () => false,
    readFile: (path) => {
      const found = path === PATH ? text : files[path];
      if (found === undefined) throw Object.assign(new Error("no such file"), { code: "ENOENT" });
      return found;
    },
  });
}

function failure(action: () => unknown): ErserverError {
  try {
    action();
  } catch (error) {
    if (error instanceof ErserverError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

const HEAD = "source: host=ny dbname=b\ntargets:\n  london: host=london dbname=b\n";

describe("a file that is right", () => {
  test("the smallest one gets every default", () => {
    const config = load(HEAD);
    expect(describeConninfo(config.source)).toBe("anna@ny:5432/b");
    expect(config.targets.map(({ name, conninfo }) => [name, describeConninfo(conninfo)])).toEqual([
      ["london", "anna@london:5432/b"],
    ]);
    expect(config).toMatchObject({
      path: PATH,
      tables: {
        include: [{ schema: "*", table: "*", columns: undefined, where: undefined }],
        exclude: [],
        publishViaPartitionRoot: true,
        withoutKey: "stop",
        missingColumn: "stop",
      },
      capture: "auto",
      timeoutMs: 30_000,
      apply: {
        conflict: "source-wins",
        mode: "group",
        workers: "auto",
        distance: "auto",
        delayMs: 0,
        group: { transactions: 10_000, bytes: 4 * 2 ** 20, delayMs: 0 },
      },
      copyJobs: 4,
      binary: "auto",
      logLevel: "info",
    });
  });

  test("every key is taken over", () => {
    const config = load(`
source: postgres://replicator@ny.example/booktown
targets:
  london: postgres://replicator@london.example/booktown
  Tokyo-2: { host: tokyo.example, port: 6000, dbname: booktown }
tables:
  include: ["public.*", { table: public.Employee, columns: [Id, '"Name"'], where: "active" }]
  exclude: ["public.audit_*"]
  publish_via_partition_root: false
  without_key: refresh
  missing_column: ignore
capture: wal
timeout: 1m
apply: { conflict: stop, group: { transactions: 50, bytes: 512kB } }
copy: { jobs: 8 }
binary: off
log: { level: debug }
`);
    expect(config.targets.map(({ name }) => name)).toEqual(["london", "Tokyo-2"]);
    expect(config.tables).toEqual({
      include: [
        { schema: "public", table: "*", columns: undefined, where: undefined },
        { schema: "public", table: "employee", columns: ["id", "Name"], where: "active" },
      ],
      exclude: [{ schema: "public", table: "audit_*", columns: undefined, where: undefined }],
      publishViaPartitionRoot: false,
      registeredOnly: false,
      withoutKey: "refresh",
      missingColumn: "ignore",
    });
    expect(config).toMatchObject({
      capture: "wal",
      timeoutMs: 60_000,
      apply: { conflict: "stop", group: { transactions: 50, bytes: 512 * 1024 } },
      copyJobs: 8,
      binary: "off",
      logLevel: "debug",
    });
  });

  test.each([
    ["a URL", "postgres://bob:${env:PW}@ny/b"],
    ["keyword=value pairs", "host=ny dbname=b user=bob password=${env:PW}"],
    ["quoted keyword=value pairs", `"host=ny dbname=b user=bob password='\${env:PW}'"`],
    ["a mapping", '{ host: ny, dbname: b, user: bob, password: "${env:PW}" }'],
    ["a file beside the configuration", "postgres://bob:${file:../secrets/pw}@ny/b"],
  ])("a password from a reference in %s may hold any character", (_, source) => {
    const password = String.raw`p@s/s:w'o\r d%`;
    const files = { [`${process.cwd()}/secrets/pw`]: `${password}\n` };
    const config = load(`source: ${source}\ntargets: { london: host=london }\n`, {
      env: { PW: password },
      files,
    });
    expect(config.source.password?.reveal()).toBe(password);
    expect(describeConninfo(config.source)).toBe("bob@ny:5432/b");
  });

  test("a reference can be the whole connection string, and $${ is a plain ${", () => {
    const env = { DSN: "postgres://bob:pw@ny/b" };
    expect(
      describeConninfo(load("source: ${env:DSN}\ntargets: { a: host=x dbname=b }", { env }).source),
    ).toBe("bob@ny:5432/b");
    expect(load("source: host=ny options=$${x}\ntargets: { a: host=x }").source.options).toBe("${x}");
  });

  test("servers of one name are told apart by their addresses", () => {
    const named = (address: string): string => `host=x hostaddr=${address} dbname=b`;
    const text = (source: string, target: string): string => `source: ${source}\ntargets: { a: ${target} }\n`;
    expect(load(text(named("10.0.0.1"), named("10.0.0.2"))).targets).toHaveLength(1);
    for (const source of [named("10.0.0.2"), "host=x dbname=b"])
      expect(failure(() => load(text(source, named("10.0.0.2")))).code).toBe("ERS-103");
  });

  test("anchors and aliases work", () => {
    expect(
      load("source: host=a dbname=x\ntargets: { b: &t { host: b }, c: { host: c } }\ncopy: {}\n").targets,
    ).toHaveLength(2);
  });
});

describe("each problem is given with its position", () => {
  test.each<[string, string, string, string, RegExp]>([
    [
      "an unknown key",
      `${HEAD}tabels:\n  include: []\n`,
      "ERS-103",
      "4:1",
      /unknown key "tabels"\. Did you mean "tables"\?/,
    ],
    [
      "an unknown nested key",
      `${HEAD}apply:\n  conflicts: stop\n`,
      "ERS-103",
      "5:3",
      /apply: unknown key "conflicts".*"conflict"/,
    ],
    [
      "an unknown key of a table",
      `${HEAD}tables:\n  include:\n    - table: public.a\n      colums: [id]\n`,
      "ERS-103",
      "7:7",
      /tables\.include\[0\]: unknown key "colums"\. Did you mean "columns"\?/,
    ],
    ["a duplicate key", `${HEAD}source: host=x\n`, "ERS-103", "4:1", /stands twice/],
    ["a missing key", "targets:\n  a: host=x\n", "ERS-103", "1:1", /source: is missing/],
    ["an empty file", "", "ERS-103", "1:1", /source: is missing[^]*targets: is missing/],
    ["a file that is a list", "- a\n", "ERS-103", "1:1", /must be a mapping/],
    [
      "a value that is nothing",
      "source:\ntargets: { a: host=x }\n",
      "ERS-103",
      "1:8",
      /source: must be text or a mapping/,
    ],
    ["no targets", "source: host=x\ntargets: {}\n", "ERS-103", "2:10", /targets: must name at least one/],
    [
      "a target name",
      "source: host=x\ntargets:\n  a b: host=y\n",
      "ERS-103",
      "3:3",
      /must be 1 to 40 letters/,
    ],
    [
      "a wrong word",
      `${HEAD}capture: wall\n`,
      "ERS-103",
      "4:10",
      /capture: must be one of auto, wal, trigger/,
    ],
    [
      "a number without unit",
      `${HEAD}timeout: 30\n`,
      "ERS-103",
      "4:10",
      /timeout: must be a duration with its unit, such as "30s"/,
    ],
    [
      "an unknown unit",
      `${HEAD}timeout: 30d\n`,
      "ERS-103",
      "4:10",
      /timeout: must be a duration with its unit: ms, s, m or h/,
    ],
    [
      "a duration too short",
      `${HEAD}timeout: 10ms\n`,
      "ERS-103",
      "4:10",
      /timeout: must be from 1 s to 86400 s/,
    ],
    [
      "a size",
      `${HEAD}apply: { group: { bytes: 4mb } }\n`,
      "ERS-103",
      "4:26",
      /bytes: must be a size with its unit: B, kB, MB or GB/,
    ],
    [
      "a number out of range",
      `${HEAD}copy: { jobs: 0 }\n`,
      "ERS-103",
      "4:15",
      /copy\.jobs: must be at least 1/,
    ],
    ["a fraction", `${HEAD}copy: { jobs: 1.5 }\n`, "ERS-103", "4:15", /copy\.jobs: must be a whole number/],
    [
      "a boolean for a word",
      `${HEAD}binary: true\n`,
      "ERS-103",
      "4:9",
      /binary: must be one of auto, on, off/,
    ],
    [
      "a pattern without schema",
      `${HEAD}tables: { include: [employee] }\n`,
      "ERS-103",
      "4:21",
      /"employee" has no schema: write "public\.employee"/,
    ],
    [
      "an exclusion with columns",
      `${HEAD}tables: { exclude: [{ table: a.b }] }\n`,
      "ERS-103",
      "4:21",
      /exclude\[0\]: must be text/,
    ],
    [
      "columns for a pattern",
      `${HEAD}tables: { include: [{ table: "public.*", columns: [a] }] }\n`,
      "ERS-103",
      "4:30",
      /need one table, without \*/,
    ],
    [
      "a column twice",
      `${HEAD}tables: { include: [{ table: a.b, columns: [x, X] }] }\n`,
      "ERS-103",
      "4:44",
      /names a column twice/,
    ],
    ["no included table", `${HEAD}tables: { include: [] }\n`, "ERS-103", "4:20", /selects no table/],
    ["an open quote", `${HEAD}log: "x\n`, "ERS-102", "5:1", /quote/],
    ["a tab", `${HEAD}log:\n\tlevel: info\n`, "ERS-102", "5:1", /[Tt]ab/],
    ["an alias without anchor", `${HEAD}log: *nothing\n`, "ERS-102", "1:1", /alias/],
    [
      "a mapping inside of itself",
      "source: &s\n  host: *s\ntargets: { a: host=x }\n",
      "ERS-102",
      "2:9",
      /nested too deeply, or an alias/,
    ],
    ["a list inside of itself", `${HEAD}tables: &t\n  include: [*t]\n`, "ERS-102", "5:13", /too deeply/],
    ["too many levels", `${HEAD}copy: ${"[".repeat(40)}${"]".repeat(40)}\n`, "ERS-102", "4:39", /too deeply/],
    [
      "aliases that multiply the file",
      `${HEAD}a: &a [x, x]\n${Array.from("abcdefgh", (last, at) => `${at}: &${"bcdefghi"[at]} [*${last}, *${last}]\n`).join("")}`,
      "ERS-102",
      "1:1",
      /there are too many/,
    ],
    ["a directive", `%TAGS x\n---\n${HEAD}`, "ERS-102", "1:1", /a line that begins with %/],
    [
      "a tag that makes no plain data",
      "source: !!set {}\ntargets: { a: host=x }\n",
      "ERS-102",
      "1:9",
      /a tag/,
    ],
    [
      "a date of YAML 1.1, which is text",
      "%YAML 1.1\n---\nsource: 2001-01-01\ntargets: { a: host=x }\n",
      "ERS-104",
      "3:9",
      /source: missing "="/,
    ],
    ["a mapping for a key", `${HEAD}? { a: b }\n: c\n`, "ERS-103", "4:3", /a key must be plain text/],
    [
      "a key that is in every object of JavaScript",
      "source: host=x\ntargets: { a: host=y, __proto__: host=z }\n",
      "ERS-103",
      "2:23",
      /"__proto__" cannot be a key or a name/,
    ],
    [
      "a comma in an unquoted password",
      "source: { host: x, password: a,b }\ntargets: { a: host=x }\n",
      "ERS-103",
      "1:32",
      /a key has no value.*comma/,
    ],
    ["a second document", `${HEAD}---\na: b\n`, "ERS-102", "4:1", /second document/],
    [
      "a connection string",
      "source: hots=x\ntargets: { a: host=x }\n",
      "ERS-104",
      "1:9",
      /source: unknown keyword "hots"/,
    ],
    [
      "a keyword of a mapping",
      "source: { database: x }\ntargets: { a: host=x }\n",
      "ERS-104",
      "1:9",
      /Did you mean "dbname"/,
    ],
    [
      "a variable that is not set",
      "source: host=x\ntargets:\n  a: host=${env:NOPE}\n",
      "ERS-105",
      "3:6",
      /targets\.a: environment variable "NOPE" is not set/,
    ],
    [
      "a variable that every object of JavaScript has",
      "source: host=x\ntargets:\n  a: host=${env:constructor}\n",
      "ERS-105",
      "3:6",
      /environment variable "constructor" is not set/,
    ],
    [
      "a file that is absent",
      "source: host=x\ntargets:\n  a: host=${file:nope}\n",
      "ERS-105",
      "3:6",
      /etc\/nope" cannot be read \(ENOENT\)/,
    ],
    [
      "a reference of no kind",
      "source: host=x\ntargets:\n  a: host=${NOPE}\n",
      "ERS-105",
      "3:6",
      /must be of the form \$\{env:NAME\}/,
    ],
    [
      "a target that is the source",
      "source: host=x dbname=b\ntargets:\n  a: postgres://X/b\n",
      "ERS-103",
      "3:6",
      /targets\.a: is the same database as the source/,
    ],
    [
      "two targets that are one",
      "source: host=x\ntargets:\n  a: host=y dbname=b\n  b: host=z,y dbname=b\n",
      "ERS-103",
      "4:6",
      /same database as a/,
    ],
  ])("%s", (_, text, code, position, message) => {
    const error = failure(() => load(text));
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
    expect(error.message).toContain(`${PATH}:${position}: `);
    expect(error.remedy).not.toBe("");
  });

  test.each(["[", "{a: ", "- "])("20,000 times %j is one problem, in words", (open) => {
    const error = failure(() => load(open.repeat(20_000)));
    expect(error.code).toBe("ERS-102");
    expect(error.message).toMatch(/^etc\/erserver\.yaml:1:\d+: lists and mappings are nested too deeply/);
  });

  test("all problems come in one error, in the order of the file", () => {
    const error = failure(() =>
      load("source: hots=x\ntargets:\n  a: host=${env:NOPE}\ntimeout: 30\ncapture: triggers\ntabels: 1\n"),
    );
    expect(error.code).toBe("ERS-103");
    expect(error.message.match(/^ {2}\S+:\d+:\d+: \w+/gm)).toEqual([
      `  ${PATH}:1:9: source`,
      `  ${PATH}:3:6: targets`,
      `  ${PATH}:4:10: timeout`,
      `  ${PATH}:5:10: capture`,
      `  ${PATH}:6:1: unknown`,
    ]);
    expect(error.message).toMatch(/^etc\/erserver\.yaml has 5 problems:/);
  });
});

test("a file that is not there is answered with an example and the demo", () => {
  const error = failure(() => loadConfig("/nowhere/erserver.yaml"));
  expect(error).toMatchObject({ code: "ERS-101", subject: "/nowhere/erserver.yaml" });
  expect(error.remedy).toContain("erserver demo");
  expect(error.remedy).toContain("targets:");
});

describe("a secret never shows", () => {
  test("in the configuration", () => {
    const config = load(
      "source: postgres://u:hunter2@h/db\ntargets: { a: { host: x, password: hunter2 } }\n",
    );
    expect(config.source.password?.reveal()).toBe("hunter2");
    for (const form of [inspect(config, { depth: 9, showHidden: true }), JSON.stringify(config)])
      expect(form).not.toContain("hunter2");
  });

  test.each([
    "source: postgres://u:hun${ter2}hunter2@h/db\ntargets: { a: host=x }",
    "source: postgres://u:@hunter2@h/db\ntargets: { a: host=x }",
    "source: postgres://u:${env:PW}@h:x/db\ntargets: { a: host=x }",
    "source: { host: x, pasword: hunter2 }\ntargets: { a: host=x }",
    "source: { host: x, password: [hunter2] }\ntargets: { a: host=x }",
    "source: host=x\ntargets: { 'postgres://u:hunter2@h/db' }",
    "source: host=x\ntargets: [ 'postgres://u:hunter2@h/db' ]",
    "source: host=x\ntargets: { a: host=y }\npostgres://u:hunter2@h/db: x",
    'source: "postgres://u:hunter2@h/db\ntargets: { a: host=x }',
    'source: "postgres://u:hunter2\\q@h/db"\ntargets: { a: host=x }',
    "source: @hunter2\ntargets: { a: host=x }",
    "source: !hunter2 x\ntargets: { a: host=x }",
    "source: 'x' hunter2\ntargets: { a: host=x }",
    "source: *hunter2\ntargets: { a: host=x }",
    "source: postgres://u:hunter2@h/db\ntargets: { a: postgres://v:hunter2@h/db }",
    "source: { host: h, password: a,hunter2 }\ntargets: { a: host=x }",
    "source: { host: h, password: a, hunter2: [b] }\ntargets: { a: host=x }",
    "source: host=x\ntargets: { a: { password: a, hunter2: } }",
    "? { password: hunter2 }\n: x\nsource: host=x\ntargets: { a: host=y }",
    "source: { [hunter2]: x }\ntargets: { a: host=y }",
    "%hunter2\n---\nsource: host=x\ntargets: { a: host=y }",
    "%YAML hunter2\n---\nsource: host=x\ntargets: { a: host=y }",
  ])("in the error about %j", (text) => {
    const warned = vi.spyOn(process, "emitWarning").mockReturnValue();
    const error = failure(() => load(text, { env: { PW: "hunter2" } }));
    expect(warned).not.toHaveBeenCalled();
    expect(inspect(error, { depth: 9 })).not.toContain("hunter2");
    expect(JSON.stringify(error)).not.toContain("hunter2");
  });
});
