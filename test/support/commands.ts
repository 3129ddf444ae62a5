/** Commands as users give them, run in this process. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "vitest";
import { runProgram } from "../../src/cli/program.ts";
import { type FreshDatabase, freshDatabase, sharedCluster } from "./clusters.ts";
import { expectEqualTables } from "./compare.ts";
import { withoutProgress } from "./progress-lines.ts";
import { type RecordingTerminal, recordingTerminal } from "./recording-terminal.ts";

export interface Said {
  readonly exit: number;
  readonly output: string;
  /** Standard error without its lines of progress. */
  readonly errors: string;
}

export async function erserver(...args: readonly string[]): Promise<Said> {
  const terminal = recordingTerminal();
  const exit = await runProgram(args, terminal);
  return { exit, output: terminal.output, errors: withoutProgress(terminal.errors) };
}

/** One of the old commands. */
export function rserv(...args: readonly string[]): Promise<Said> {
  return erserver("rserv", ...args);
}

/** What it prints when all goes well. */
export async function done(saying: Promise<Said>): Promise<string> {
  const { exit, output, errors } = await saying;
  expect({ exit, errors }, output).toEqual({ exit: 0, errors: "" });
  return output;
}

/** A command that goes on until it is stopped. */
export interface Going extends AsyncDisposable {
  readonly terminal: RecordingTerminal;
  /** The exit code. */
  readonly finished: Promise<number>;
  /** Asks it to end, as a signal does; resolves with the exit code. */
  stop(): Promise<number>;
}

function going(...args: readonly string[]): Going {
  const interrupt = new AbortController();
  const terminal = recordingTerminal({ interrupted: interrupt.signal });
  const finished = runProgram(args, terminal);
  const stop = async (): Promise<number> => {
    interrupt.abort();
    return finished;
  };
  return {
    terminal,
    finished,
    stop,
    [Symbol.asyncDispose]: async () => {
      await stop();
    },
  };
}

/** One of the old commands, that goes on. */
export function startRserv(...args: readonly string[]): Going {
  return going("rserv", ...args);
}

export interface ConfigFile extends AsyncDisposable {
  readonly path: string;
  /** Runs a command with it. */
  run(command: string, ...args: readonly string[]): Promise<Said>;
  start(command: string, ...args: readonly string[]): Going;
}

/** A configuration in a folder of its own; `extra` is more YAML. */
export async function configFile(
  source: string,
  targets: Readonly<Record<string, string>>,
  extra = "",
): Promise<ConfigFile> {
  const folder = await mkdtemp(path.join(tmpdir(), "erserver-config-"));
  const file = path.join(folder, "erserver.yaml");
  const lines = Object.entries(targets).map(([name, url]) => `  ${name}: ${JSON.stringify(url)}\n`);
  await writeFile(
    file,
    `source: ${JSON.stringify(source)}\nlog: { level: error }\ntargets:\n${lines.join("")}${extra}`,
  );
  return {
    path: file,
    run: (command, ...args) => erserver(command, "-c", file, ...args),
    start: (command, ...args) => going(command, "-c", file, ...args),
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true }),
  };
}

export interface MasterAndSlave extends AsyncDisposable {
  readonly master: FreshDatabase;
  readonly slave: FreshDatabase;
  /** Replicates, and returns what was printed. */
  replicate(...args: readonly string[]): Promise<string>;
  /** Replicates, then every table equal by content. */
  expectEqual(tables?: readonly string[]): Promise<void>;
}

export interface MasterAndSlaveOptions {
  /** SQL for both. */
  readonly schema: string;
  /** SQL for the master, before anything is set up. */
  readonly rows?: string;
  /** What MasterAddTable and SlaveAddTable are told: `customer`, `customer lastname`. */
  readonly tables: readonly string[];
}

/** Set up by the old commands as their documentation says it. */
export async function masterAndSlave({
  schema,
  rows = "",
  tables,
}: MasterAndSlaveOptions): Promise<MasterAndSlave> {
  const master = await freshDatabase(sharedCluster("source"));
  const slave = await freshDatabase(sharedCluster("target"));
  const replicate = (...args: readonly string[]): Promise<string> =>
    done(rserv("Replicate", master.url, slave.url, ...args));
  const pair = {
    master,
    slave,
    replicate,
    expectEqual: async (names?: readonly string[]) => {
      await replicate();
      await expectEqualTables(master.url, slave.url, names);
    },
    [Symbol.asyncDispose]: async () => {
      await slave[Symbol.asyncDispose]();
      await master[Symbol.asyncDispose]();
    },
  };
  try {
    await master.query(schema + rows);
    await slave.query(schema);
    await done(rserv("MasterInit", master.url));
    await done(rserv("SlaveInit", slave.url));
    for (const table of tables) {
      await done(rserv("MasterAddTable", master.url, ...table.split(" ")));
      await done(rserv("SlaveAddTable", slave.url, ...table.split(" ")));
    }
    return pair;
  } catch (error) {
    await pair[Symbol.asyncDispose]();
    throw error;
  }
}
