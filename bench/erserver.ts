import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, openSync, readFileSync, rmSync } from "node:fs";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import type { Follower } from "./follower.ts";
import type { Pair } from "./servers.ts";

/** Ready is, as in pg_subscription_rel, a table whose copy the stream has passed. */
const REACHED = { copied: "true", ready: "copy_lsn <= progress.lsn" };

/** `erserver run`, as a process of its own, with the configuration that one has to write and no more. */
export class ErserverFollower implements Follower {
  readonly #pair: Pair;
  readonly #cli: string;
  readonly #folder: string;
  #process: ChildProcess | undefined;
  #schemaExists = false;

  private constructor(pair: Pair, cli: string, folder: string) {
    this.#pair = pair;
    this.#cli = cli;
    this.#folder = folder;
  }

  /** @param cli the main.js to run. @param ports where it finds the servers. @param yaml more of its configuration. */
  static async create(
    pair: Pair,
    { cli, ports, yaml }: { cli: string; ports: { source: number; target: number }; yaml: string },
  ): Promise<ErserverFollower> {
    if (!existsSync(cli)) throw new Error(`there is no erserver in ${cli}: npm run build makes it`);
    const folder = await mkdtemp(path.join(tmpdir(), "erserver-bench-"));
    const follower = new ErserverFollower(pair, cli, folder);
    process.once("exit", follower.#destroyNow);
    const url = (side: "source" | "target"): string => {
      const server = new URL(pair[side].cluster.url());
      server.port = String(ports[side]);
      return server.href;
    };
    await writeFile(
      follower.#config,
      `source: ${url("source")}\ntargets:\n  bench: ${url("target")}\n${yaml}\n`,
    );
    return follower;
  }

  async start(): Promise<void> {
    const log = openSync(this.#log, "a");
    const args = [this.#cli, "run", "-c", this.#config];
    this.#process = spawn(process.execPath, args, { stdio: ["ignore", log, log] });
    closeSync(log);
    await once(this.#process, "spawn");
  }

  async stop(): Promise<void> {
    this.assertRunning();
    const child = this.#process;
    if (child === undefined) return;
    const exited = once(child, "exit");
    child.kill("SIGTERM");
    await exited;
    if (child.exitCode !== 0) throw this.#failure();
  }

  async tables(state: "copied" | "ready"): Promise<number> {
    const { session } = this.#pair.target;
    if (!this.#schemaExists) {
      const { rows } = await session.query("SELECT WHERE to_regclass('erserver.table_state') IS NOT NULL");
      this.#schemaExists = rows.length === 1;
      if (!this.#schemaExists) return 0;
    }
    const { rows } = await session.query<{ count: number }>(
      `SELECT count(*)::int FROM erserver.table_state JOIN erserver.progress USING (pipeline) WHERE state = 'finished_copy' AND ${REACHED[state]}`,
    );
    return rows[0]?.count ?? 0;
  }

  peakMemory(): number | undefined {
    const file = `/proc/${this.#process?.pid}/status`;
    if (!existsSync(file)) return undefined;
    const kilobytes = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(file, "utf8"))?.[1];
    return kilobytes === undefined ? undefined : Number(kilobytes) / 1024;
  }

  assertRunning(): void {
    if (this.#process !== undefined && !this.#isRunning) throw this.#failure();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const child = this.#process;
    const exited = this.#isRunning && child !== undefined ? once(child, "exit") : undefined;
    this.#destroyNow();
    await exited;
    process.removeListener("exit", this.#destroyNow);
  }

  get #isRunning(): boolean {
    const child = this.#process;
    return child !== undefined && child.exitCode === null && child.signalCode === null;
  }

  get #config(): string {
    return path.join(this.#folder, "erserver.yaml");
  }

  get #log(): string {
    return path.join(this.#folder, "log");
  }

  /** Also for the end of our process, when nothing can be awaited. */
  readonly #destroyNow = (): void => {
    this.#process?.kill("SIGKILL");
    rmSync(this.#folder, { recursive: true, force: true });
  };

  #failure(): Error {
    const { exitCode, signalCode } = this.#process ?? {};
    const end = readFileSync(this.#log, "utf8").split("\n").slice(-30).join("\n");
    return new Error(
      `erserver ended with ${signalCode ?? `exit code ${exitCode}`}; the end of its log:\n${end}`,
    );
  }
}
