import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { recordingTerminal } from "../../test/support/recording-terminal.ts";
import { createProgram, runProgram } from "./program.ts";

let folder = "";
let config = "";
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), "erserver-cli-"));
  config = path.join(folder, "erserver.yaml");
  writeFileSync(
    config,
    "source: postgres://a@h/d\ntargets: { london: postgres://a@i/d, tokyo: postgres://a@j/d }\n",
  );
});
afterAll(() => rmSync(folder, { recursive: true }));

async function call(...args: string[]) {
  const terminal = recordingTerminal();
  const exit = await runProgram(args, terminal);
  return { exit, output: terminal.output, errors: terminal.errors };
}

const program = createProgram(recordingTerminal());
const commands = program.commands.map((command) => command.name());
const configured = program.commands
  .filter(({ options }) => options.some(({ short }) => short === "-c"))
  .map((command) => command.name());
const old =
  program.commands.find((command) => command.name() === "rserv")?.commands.map((command) => command.name()) ??
  [];

test("the commands are those of the documentation", () => {
  expect(commands).toEqual([
    "demo",
    "check",
    "init",
    "run",
    "sync",
    "status",
    "verify",
    "pause",
    "resume",
    "drop",
    "rserv",
  ]);
});

test.each(commands)("%s --help says what it does, with an example, and ends well", async (command) => {
  const { exit, output, errors } = await call(command, "--help");
  expect({ exit, errors }).toEqual({ exit: 0, errors: "" });
  expect(output).toMatch(new RegExp(`^Usage: erserver ${command} \\[options\\]( \\[command\\])?\n`));
  expect(output).toMatch(new RegExp(`\nExample: erserver ${command}`));
});

test("S46: the old commands are all there, each is an executable too", () => {
  const executables = new URL("../../rserv/", import.meta.url);
  expect(readdirSync(executables).toSorted()).toEqual(old.toSorted());
  for (const name of old)
    expect(readFileSync(new URL(name, executables), "utf8")).toContain(
      `exec node "$main" rserv ${name} "$@"`,
    );
});

test.each(old)("S26: %s --help says what it does, with an example, and ends well", async (command) => {
  const { exit, output, errors } = await call("rserv", command, "--help");
  expect({ exit, errors }).toEqual({ exit: 0, errors: "" });
  expect(output).toMatch(new RegExp(`^Usage: erserver rserv ${command} \\[options\\] `));
  expect(output).toMatch(new RegExp(`\nExample: ${command} `));
});

test("T16: a password on the command line is refused, and not repeated", async () => {
  const { exit, output, errors } = await call("rserv", "MasterInit", "--password=geheim", "booktown");
  expect({ exit, output }).toEqual({ exit: 2, output: "" });
  expect(errors).toMatch(/a password is not taken from the command line[^]*\.pgpass/);
  expect(errors).not.toContain("geheim");
});

test.each([
  "postgres://pma:geheim@h/booktown",
  "postgres://pma:a#geheim@h/booktown",
  "postgres://pma@h/booktown?pass%77ord=geheim",
  "dbname=booktown password = geheim",
  "user='x'password=geheim",
  "dbname=booktown sslpassword=geheim",
  "mysql://pma:geheim@h/booktown",
])("T16: nor one in a connection string: %s", async (database) => {
  const { exit, output, errors } = await call("rserv", "MasterInit", database);
  expect({ exit, output }).toEqual({ exit: 2, output: "" });
  expect(errors).not.toContain("geheim");
});

test("--version prints the package's version alone", async () => {
  expect(await call("--version")).toMatchObject({
    exit: 0,
    output: expect.stringMatching(/^\d+\.\d+\.\d+\n$/),
    errors: "",
  });
});

describe("a wrong command line is refused with exit code 2, one message and the way to the help:", () => {
  test.each([
    [["rnu"], "unknown command 'rnu' (Did you mean run?)", "erserver --help"],
    [["MasterInit"], "unknown command 'MasterInit' (Did you mean rserv MasterInit?)", "erserver --help"],
    [["--jsn"], "unknown option '--jsn'", "erserver --help"],
    [["status", "--jsno"], "unknown option '--jsno' (Did you mean --json?)", "erserver status --help"],
    [
      ["verify", "customer"],
      "too many arguments for 'verify'. Expected 0 arguments but got 1.",
      "erserver verify --help",
    ],
    [["run", "--config"], "option '-c, --config <file>' argument missing", "erserver run --help"],
    [
      ["sync", "--timeout", "soon"],
      "option '--timeout <duration>' argument 'soon' is invalid. A number and a unit is needed, such as 30s or 5m.",
      "erserver sync --help",
    ],
    [
      ["demo", "--source-major", "x"],
      "option '--source-major <major>' argument 'x' is invalid. A major version is needed, such as 15.",
      "erserver demo --help",
    ],
  ])("%j", async (args, message, help) => {
    expect(await call(...args)).toEqual({
      exit: 2,
      output: "",
      errors: `ERS-106  ${message}\n  → Run "${help}" to see what it takes.\n`,
    });
  });

  test("none at all, which shows the help too", async () => {
    const { exit, errors } = await call();
    expect(exit).toBe(2);
    expect(errors).toMatch(/^Usage: erserver [^]*ERS-106 {2}no command was given\n/);
  });
});

test.each(configured)("%s without a configuration says what to write", async (command) => {
  const { exit, errors } = await call(command, "-c", path.join(folder, "absent.yaml"));
  expect(exit).toBe(2);
  expect(errors).toMatch(
    /^ERS-101 {2}configuration file ".*absent.yaml" does not exist\n {2}→ [^]*source: postgres/,
  );
});

test("a target that the configuration does not have is refused by name", async () => {
  expect(await call("sync", "-c", config, "--target", "tokio")).toEqual({
    exit: 2,
    output: "",
    errors: `ERS-106  ${config} has no target "tokio". Did you mean "tokyo"?\n  → Its targets are: london, tokyo.\n`,
  });
});

test("ERSERVER_CONFIG names the configuration, --config wins", async () => {
  process.env["ERSERVER_CONFIG"] = path.join(folder, "elsewhere.yaml");
  try {
    expect((await call("verify")).errors).toContain("elsewhere.yaml");
    expect((await call("verify", "-c", "here.yaml")).errors).toContain("here.yaml");
  } finally {
    delete process.env["ERSERVER_CONFIG"];
  }
});
