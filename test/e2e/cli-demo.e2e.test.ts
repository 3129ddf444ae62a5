import { readdirSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { serverUser, temporaryFolder } from "../../src/demo/binaries.ts";
import { commandLine } from "../../src/demo/processes.ts";
import { querySession } from "../support/bad-input.ts";
import { BuiltCli, type RunningCommand } from "../support/built-cli.ts";
import { until } from "../support/wait.ts";

let cli: BuiltCli;
beforeAll(async () => {
  cli = await BuiltCli.build();
});
afterAll(async () => {
  await cli[Symbol.asyncDispose]();
});

/** What a demo, by the pid of its process, has left: folders, and processes that have such a folder in their command line. */
function leftOf({ process: { pid } }: RunningCommand): string[] {
  const name = `erserver-cluster-${pid}-`;
  const folders = readdirSync(temporaryFolder(serverUser())).filter((entry) => entry.startsWith(name));
  const processes = readdirSync("/proc")
    .filter((entry) => /^\d+$/.test(entry))
    .map((entry) => commandLine(Number(entry)))
    .filter((line) => line.includes(name));
  return [...folders, ...processes];
}

const STORY = [
  /1 {2}Start three PostgreSQL servers\n {3}new-york .*PostgreSQL 15\.[^]*london .*PostgreSQL 18\./,
  /new-york +11 tables with 628 rows/,
  /london +11 tables .*streaming after/,
  /public\.book_backup has no row identity/,
  /UPDATE customer SET lastname = 'Nathaniel' WHERE cust_id = 10\n +new-york +10 \| Nathaniel \| Dr\.\n +london +10 \| Nathaniel \| Dr\. +after \d+ ms\n +tokyo +10 \| Nathaniel/,
  /tokyo +offline since \d\d:\d\d:\d\d\n +ERS-2/,
  /london +streaming, lag .*not delayed/,
  /tokyo +level with New York/,
  /public\.customer +\d+ +equal +equal/,
  /All 11 tables are equal/,
  /To go on:/,
];

test("the demo tells its story twice in a row and leaves nothing behind", { timeout: 180_000 }, async () => {
  for (const _round of [1, 2]) {
    await using demo = cli.start("demo");
    const { exit, output, errors } = await demo.finished;
    expect({ exit, errors }).toEqual({ exit: 0, errors: "" });
    for (const line of STORY) expect(output).toMatch(line);
    expect(output).not.toContain("\u001b");
    expect(leftOf(demo)).toEqual([]);
  }
});

test.each([
  ["while servers start", /1 {2}Start/, "SIGINT"],
  ["while the bookshop is loaded", /2 {2}Open/, "SIGTERM"],
  ["while tables are copied", /3 {2}Start/, "SIGINT"],
  ["while customers buy", /4 {2}Customers/, "SIGINT"],
  ["while Tokyo is away", /offline since/, "SIGINT"],
  ["while Tokyo starts", /7 {2}Start/, "SIGTERM"],
  ["while tables are compared", /8 {2}Compare/, "SIGINT"],
] as const)(
  "interrupted %s it stops its servers, removes its folders and ends with 130",
  { timeout: 120_000 },
  async (_, moment, signal) => {
    await using demo = cli.start("demo");
    await demo.prints(moment);
    // Somewhere in the step, not always at its first line.
    await sleep(Math.random() * 300);
    demo.process.kill(signal);
    const { exit, errors, output } = await demo.finished;
    expect({ exit, errors, output }).toMatchObject({
      exit: 130,
      errors: expect.stringMatching(/^ERS-902 {2}the demo was interrupted/),
    });
    expect(leftOf(demo)).toEqual([]);
  },
);

test("a second Ctrl-C ends it at once, and still leaves nothing", { timeout: 120_000 }, async () => {
  await using demo = cli.start("demo");
  await demo.prints(/4 {2}Customers/);
  demo.process.kill("SIGINT");
  demo.process.kill("SIGINT");
  expect((await demo.finished).exit).toBe(130);
  expect(leftOf(demo)).toEqual([]);
});

test("--keep leaves it running for psql, status and verify, until Ctrl-C", { timeout: 120_000 }, async () => {
  await using demo = cli.start("demo", "--keep");
  await demo.prints(/verify -c \S+\.yaml\n/);
  const config = /verify -c (\S+\.yaml)\n/.exec(demo.output)?.[1] ?? "";
  const streaming = async (): Promise<boolean> =>
    /london +streaming[^]*tokyo +streaming/.test((await cli.run("status", "-c", config)).output);
  await until(streaming, { what: "both targets to stream" });

  const printed = demo.output.matchAll(/^ *psql (postgres:\/\/\S+) +# (\S+)$/gm);
  const urls = new Map(Array.from(printed, ([, url = "", name = ""]) => [name, url] as const));
  expect([...urls.keys()]).toEqual(["new-york", "london", "tokyo"]);
  const [source = "", ...targets] = urls.values();
  await querySession(source, "update customer set firstname = 'by hand' where cust_id = 10");
  for (const url of [source, ...targets]) {
    const renamed = (): Promise<unknown[]> =>
      querySession(url, "select from customer where lastname = 'Nathaniel' and firstname = 'by hand'");
    await until(async () => (await renamed()).length === 1, { what: `the row, by ${url}` });
  }

  expect(await cli.run("verify", "-c", config)).toMatchObject({ exit: 0, errors: "" });
  demo.process.kill("SIGINT");
  expect(await demo.finished).toMatchObject({ exit: 0, errors: "" });
  expect(leftOf(demo)).toEqual([]);
});
