import { type ChildProcess, execFile, spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { until } from "./wait.ts";
import { withoutProgress } from "./progress-lines.ts";

const root = path.join(import.meta.dirname, "../..");
const run = promisify(execFile);

export interface Finished {
  readonly exit: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly output: string;
  /** Standard error without its lines of progress. */
  readonly errors: string;
}

/** A command that runs. */
export interface RunningCommand extends AsyncDisposable {
  readonly process: ChildProcess;
  readonly output: string;
  readonly errors: string;
  readonly finished: Promise<Finished>;
  /** Waits until standard output (or, if it ends first, fails) has this. */
  prints(pattern: RegExp): Promise<void>;
}

/** The command as it is installed, compiled for the tests of one file: what they find is not what another build left. */
export class BuiltCli implements AsyncDisposable {
  readonly #folder: string;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  static async build(): Promise<BuiltCli> {
    // As deep as dist, beside the package's other files.
    const folder = await mkdtemp(path.join(root, "dist-test-"));
    const tsc = path.join(root, "node_modules/typescript/bin/tsc");
    await run(process.execPath, [tsc, "-p", path.join(root, "tsconfig.build.json"), "--outDir", folder]);
    return new BuiltCli(folder);
  }

  /** In the place of dist. */
  get folder(): string {
    return this.#folder;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#folder, { recursive: true, force: true });
  }

  start(...args: string[]): RunningCommand {
    const child = spawn(process.execPath, [path.join(this.#folder, "cli/main.js"), ...args], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    let errors = "";
    child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString()));
    let ended = false;
    const finished = new Promise<Finished>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (exit, signal) => {
        ended = true;
        resolve({ exit, signal, output, errors: withoutProgress(errors) });
      });
    });
    return {
      process: child,
      get output() {
        return output;
      },
      get errors() {
        return errors;
      },
      finished,
      prints: async (pattern) => {
        // A whole demo on a busy machine.
        await until(() => pattern.test(output) || ended, { what: String(pattern), timeout: 90_000 });
        if (!pattern.test(output)) throw new Error(`ended without ${pattern}:\n${output}${errors}`);
      },
      [Symbol.asyncDispose]: async () => {
        child.kill("SIGKILL");
        await finished;
      },
    };
  }

  run(...args: string[]): Promise<Finished> {
    return this.start(...args).finished;
  }
}
