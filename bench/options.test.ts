import { describe, expect, test } from "vitest";
import { UsageError, parseOptions } from "./options.ts";

const NAMES = ["copy", "lag"];

describe("the command line of the benchmark", () => {
  test("needs no more than a scenario", () => {
    expect(parseOptions(["lag"], NAMES)).toEqual({
      scenarios: ["lag"],
      rounds: 3,
      major: 15,
      json: false,
      scale: 1,
      only: undefined,
      cli: "dist/cli/main.js",
      yaml: "",
    });
  });

  test("takes every option, before and after the scenario", () => {
    const argv = "--rounds 5 --pg=18 lag --json --scale 0.01 --only ours --cli old/main.js"
      .split(" ")
      .concat("--yaml", "gear: stream");
    expect(parseOptions(argv, NAMES)).toEqual({
      scenarios: ["lag"],
      rounds: 5,
      major: 18,
      json: true,
      scale: 0.01,
      only: "ours",
      cli: "old/main.js",
      yaml: "gear: stream",
    });
  });

  test("runs several scenarios in the order asked for, each once", () => {
    expect(parseOptions(["lag", "copy", "lag"], NAMES)?.scenarios).toEqual(["lag", "copy"]);
  });

  test("knows all as every scenario", () => {
    expect(parseOptions(["all"], NAMES)?.scenarios).toEqual(NAMES);
  });

  test.for(["--help", "-h", "--help --rounds 0"])("gives help on %s", (argv) => {
    expect(parseOptions(argv.split(" "), NAMES)).toBeUndefined();
  });

  test.for([
    ["", "name a scenario: copy, lag, all"],
    ["lagg", 'no scenario is called "lagg"; there are copy, lag, all'],
    ["all lagg", 'no scenario is called "lagg"; there are copy, lag, all'],
    ["lag --rounds 0", '--rounds is a whole number from 1 to 100, not "0"'],
    ["lag --rounds 1.5", '--rounds is a whole number from 1 to 100, not "1.5"'],
    ["lag --rounds=", '--rounds is a whole number from 1 to 100, not ""'],
    ["lag --pg fifteen", '--pg is a whole number from 10 to 99, not "fifteen"'],
    ["lag --scale 0", '--scale is a number from 0.0001 to 100, not "0"'],
    ["lag --only theirs", '--only is ours or native, not "theirs"'],
    ["lag --round 3", /Unknown option '--round'/],
    ["lag --rounds", /argument missing/],
  ] as const)("refuses %j with a sentence", ([argv, message]) => {
    expect(() => parseOptions(argv.split(" ").filter(Boolean), NAMES)).toThrow(message);
    expect(() => parseOptions(argv.split(" ").filter(Boolean), NAMES)).toThrow(UsageError);
  });
});
