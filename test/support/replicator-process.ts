import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { until } from "./wait.ts";

/** What users run: `npm run build` makes it. */
const CLI = process.env["ERSERVER_CLI"] ?? fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));

/** Longer than any clean end takes, servers down included. */
const END_TIMEOUT_MS = 40_000;

/** `erserver run`, as a process of its own: it can be killed, stopped where it is, and started again. */
export class ReplicatorProcess implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #logFile: string;
  readonly #exited: Promise<unknown>;
  #ours = false;

  private constructor(child: ChildProcess, logFile: string) {
    this.#child = child;
    this.#logFile = logFile;
    this.#exited = once(child, "exit");
    // Nothing of ours may outlive a test run that is interrupted.
    process.once("exit", this.#killNow);
    void this.#exited.then(() => process.removeListener("exit", this.#killNow));
  }

  static start(home: ReplicatorHome): ReplicatorProcess {
    if (!existsSync(CLI)) throw new Error(`there is no erserver in ${CLI}: npm run build makes it`);
    const child = spawn(process.execPath, [CLI, "run", "-c", home.configFile], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    const keep = (data: Buffer): void => appendFileSync(home.logFile, data);
    child.stdout.on("data", keep);
    child.stderr.on("data", keep);
    return new ReplicatorProcess(child, home.logFile);
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Throws when the process has ended without being asked to. */
  assertRunning(): void {
    if (!this.running && !this.#ours) throw new Error(`the replicator ended by itself: ${this.#end()}`);
  }

  /** A crash: nothing is said to anybody. */
  async kill(): Promise<void> {
    this.#ours = true;
    this.#child.kill("SIGKILL");
    await this.#exited;
  }

  /** A clean end, as a supervisor asks for it. Fails when the exit code is not 0. */
  async stop(): Promise<void> {
    this.assertRunning();
    this.#ours = true;
    this.#child.kill("SIGTERM");
    await until(() => !this.running, {
      what: "the replicator to end after SIGTERM",
      timeout: END_TIMEOUT_MS,
    });
    if (this.#child.exitCode !== 0) throw new Error(`after SIGTERM the replicator ended with ${this.#end()}`);
  }

  /** Stands still with its connections open: a machine that hangs, or a process that is swapped out. */
  freeze(): void {
    this.#child.kill("SIGSTOP");
  }

  thaw(): void {
    this.#child.kill("SIGCONT");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.running) await this.kill();
  }

  #end(): string {
    const { exitCode, signalCode } = this.#child;
    return `${signalCode ?? `exit code ${exitCode}`}; the end of its log:\n${logTail(this.#logFile)}`;
  }

  readonly #killNow = (): void => {
    this.#child.kill("SIGKILL");
  };
}

/** A folder with the configuration and the log of all processes that were started with it. */
export class ReplicatorHome implements AsyncDisposable {
  readonly #folder: string;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  static async create(config: string): Promise<ReplicatorHome> {
    const home = new ReplicatorHome(await mkdtemp(path.join(tmpdir(), "erserver-replicator-")));
    await writeFile(home.configFile, config);
    return home;
  }

  get configFile(): string {
    return path.join(this.#folder, "erserver.yaml");
  }

  get logFile(): string {
    return path.join(this.#folder, "log");
  }

  logTail(lines?: number): string {
    return logTail(this.logFile, lines);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#folder, { recursive: true, force: true });
  }
}

function logTail(file: string, lines = 40): string {
  return existsSync(file) ? readFileSync(file, "utf8").trimEnd().split("\n").slice(-lines).join("\n") : "";
}
