import { type ChildProcess, execFile, spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { closeSync, existsSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { appendFile, chown, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { ErserverError } from "../errors/erserver-error.ts";
import {
  type ServerBinaries,
  type ServerUser,
  findBinaries,
  serverUser,
  temporaryFolder,
} from "./binaries.ts";
import { removeLeftovers } from "./leftovers.ts";
import { isRunning, signalServer } from "./processes.ts";

const run = promisify(execFile);

export interface ClusterOptions {
  readonly major: number;
  /** Added to (or instead of) the settings that every cluster gets: `{ wal_level: "replica" }`. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Kept when the cluster is disposed, and used again when it holds a cluster. Default: a folder that is removed. */
  readonly dataDirectory?: string;
  readonly port?: number;
  /** More arguments for initdb: `["--encoding=LATIN1"]`. The default is UTF8 and locale C. */
  readonly initdb?: readonly string[];
  readonly authentication?: "trust" | "scram-sha-256";
  /** The superuser's; needed with scram-sha-256. */
  readonly password?: string;
  /** The superuser's name, default `postgres`. */
  readonly user?: string;
}

export type StopMode = "smart" | "fast" | "immediate";

/** https://www.postgresql.org/docs/current/server-shutdown.html */
const STOP_SIGNAL = { smart: "SIGTERM", fast: "SIGINT", immediate: "SIGQUIT" } as const;

/** Recovery after a power cut is part of a start, and a fast stop waits for walsenders to be drained. */
const START_TIMEOUT_MS = 120_000;
const STOP_TIMEOUT_MS = 60_000;
/** The postmaster itself resorts to SIGKILL 5 s after an immediate stop. */
const QUIT_TIMEOUT_MS = 10_000;

/** Our servers that may be running or have a folder: what must not outlive this process. */
const live = new Set<Cluster>();

/**
 * Makes a new PostgreSQL server on 127.0.0.1 and starts it. It lives in a folder of its own, `erserver-cluster-<our pid>-…` in the
 * temporary folder, until it is disposed of. If this process is killed, the next process that starts a cluster stops what is left.
 *
 * @throws ErserverError ERS-903 without binaries of that major; ERS-904, with the end of the server's log, when it does not start.
 */
export async function startCluster(options: ClusterOptions): Promise<Cluster> {
  const user = serverUser();
  await prepareProcess(user);
  const binaries = await findBinaries(options.major, user);
  const folder = await mkdtemp(path.join(temporaryFolder(user), `erserver-cluster-${process.pid}-`));
  const cluster = new Cluster(options, binaries, folder, user);
  live.add(cluster);
  try {
    if (user !== undefined) await chown(folder, user.uid, user.gid);
    await cluster.initialize();
    await cluster.start();
    return cluster;
  } catch (error) {
    await cluster.dispose();
    throw error;
  }
}

/** A PostgreSQL server of our own, on this machine, that can be stopped, killed and started again. */
export class Cluster implements AsyncDisposable {
  readonly major: number;
  readonly version: string;
  readonly binaries: ServerBinaries;
  /** Log, socket and, unless one was given, the data directory. */
  readonly folder: string;
  readonly dataDirectory: string;
  readonly user: string;
  readonly #options: ClusterOptions;
  readonly #systemUser: ServerUser | undefined;
  #port: number;
  #postmaster: ChildProcess | undefined;
  #exited: Promise<unknown> = Promise.resolve();

  /** Use `startCluster`. */
  constructor(
    options: ClusterOptions,
    binaries: ServerBinaries,
    folder: string,
    systemUser: ServerUser | undefined,
  ) {
    this.major = binaries.major;
    this.version = binaries.version;
    this.binaries = binaries;
    this.folder = folder;
    this.dataDirectory = options.dataDirectory ?? path.join(folder, "data");
    this.user = options.user ?? "postgres";
    this.#options = options;
    this.#systemUser = systemUser;
    this.#port = options.port ?? 0;
  }

  /** The same for the life of the cluster, however often it is started. */
  get port(): number {
    return this.#port;
  }

  get running(): boolean {
    const postmaster = this.#postmaster;
    return postmaster?.pid !== undefined && postmaster.exitCode === null && postmaster.signalCode === null;
  }

  /** A connection URL; with the password if it is the superuser's. */
  url(database = "postgres", user = this.user): string {
    const { authentication, password } = this.#options;
    const secret =
      authentication === "scram-sha-256" && user === this.user
        ? `:${encodeURIComponent(password ?? "")}`
        : "";
    return `postgres://${encodeURIComponent(user)}${secret}@127.0.0.1:${this.#port}/${encodeURIComponent(database)}`;
  }

  /** What the server has logged so far. */
  log(): string {
    return existsSync(this.#logFile) ? readFileSync(this.#logFile, "utf8") : "";
  }

  /** Starts the server, after a stop or a kill, and waits until it accepts connections. */
  async start(): Promise<void> {
    if (this.running) return;
    const attempts = this.#port === 0 ? 5 : 1;
    for (let attempt = 1; ; attempt++) {
      const port = attempts === 1 ? this.#port : await freePort();
      if (await this.#tryStart(port)) {
        this.#port = port;
        return;
      }
      // Somebody took the port between our look and the server's bind. Anything else fails again at once.
      if (attempt < attempts && !(await isFree(port))) continue;
      throw this.#failure("did not start");
    }
  }

  /** Stops the server as `pg_ctl stop` does and waits until it has ended. A smart stop waits for clients to leave. */
  async stop(mode: StopMode = "fast"): Promise<void> {
    if (!this.running) return;
    this.unpause();
    this.#postmaster?.kill(STOP_SIGNAL[mode]);
    if (!(await this.#hasExited(STOP_TIMEOUT_MS))) throw this.#failure(`did not stop (${mode})`);
  }

  async restart(mode: StopMode = "fast"): Promise<void> {
    await this.stop(mode);
    await this.start();
  }

  /** A power cut as far as processes go: SIGKILL for all of them; what was not flushed may be lost with the operating system's cache only. */
  async kill(): Promise<void> {
    const postmaster = this.#postmaster?.pid;
    if (!this.running || postmaster === undefined) return;
    const killed = signalServer(postmaster, "SIGKILL");
    await this.#exited;
    while (killed.some((pid) => isRunning(pid))) await sleep(5);
  }

  /** Stops all of the server's processes where they are: connections stay open and silent. */
  pause(): void {
    if (this.running && this.#postmaster?.pid !== undefined) signalServer(this.#postmaster.pid, "SIGSTOP");
  }

  unpause(): void {
    if (this.running && this.#postmaster?.pid !== undefined) signalServer(this.#postmaster.pid, "SIGCONT");
  }

  /** Makes the server read its configuration files again. */
  reload(): void {
    this.#postmaster?.kill("SIGHUP");
  }

  /** Stops the server at once and removes its folder. */
  async dispose(): Promise<void> {
    if (this.running) {
      this.quit();
      if (!(await this.#hasExited(QUIT_TIMEOUT_MS))) await this.kill();
    }
    live.delete(this);
    await rm(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }

  /** Runs initdb, unless the data directory holds a cluster already, and writes the settings. */
  async initialize(): Promise<void> {
    const { dataDirectory } = this;
    if (!existsSync(path.join(dataDirectory, "PG_VERSION"))) await this.#initdb();
    const settings = {
      listen_addresses: "127.0.0.1",
      // A socket's path has at most 103 bytes (107 on Linux), and somebody may have a long temporary folder.
      unix_socket_directories: this.folder.length < 85 ? this.folder : "",
      wal_level: "logical",
      max_connections: "100",
      max_replication_slots: "20",
      max_wal_senders: "20",
      // Up to 17 the number of replication origins is that of the slots.
      ...(this.major >= 18 ? { max_active_replication_origins: "20" } : {}),
      shared_buffers: "128MB",
      fsync: "on",
      log_line_prefix: "%m [%p] %q%u@%d %a ",
      ...this.#options.settings,
    };
    const lines = Object.entries(settings).map(
      ([name, value]) => `${name} = '${value.replace(/['\\]/g, "$&$&")}'\n`,
    );
    await writeFile(path.join(dataDirectory, "erserver.conf"), lines.join(""));
  }

  /** Sends what makes the server end at once, and does not wait. */
  quit(): void {
    this.unpause();
    this.#postmaster?.kill("SIGQUIT");
  }

  /** For the end of our process, when nothing can be awaited. Call `quit` first. */
  destroyNow(): void {
    const deadline = Date.now() + 2000;
    const cell = new Int32Array(new SharedArrayBuffer(4));
    while (this.running && existsSync(this.#pidFile) && Date.now() < deadline) Atomics.wait(cell, 0, 0, 10);
    if (this.running && this.#postmaster?.pid !== undefined) signalServer(this.#postmaster.pid, "SIGKILL");
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }

  get #logFile(): string {
    return path.join(this.folder, "log");
  }

  /** The server's own lock file, which it removes when it ends. */
  get #pidFile(): string {
    return path.join(this.dataDirectory, "postmaster.pid");
  }

  async #initdb(): Promise<void> {
    const { authentication = "trust", password, initdb = [] } = this.#options;
    const passwordFile = path.join(this.folder, "password");
    const passwordOption: string[] = [];
    if (password !== undefined) {
      await writeFile(passwordFile, password, { mode: 0o600 });
      if (this.#systemUser !== undefined)
        await chown(passwordFile, this.#systemUser.uid, this.#systemUser.gid);
      passwordOption.push(`--pwfile=${passwordFile}`);
    }
    const defaults = [
      "--no-sync",
      "--encoding=UTF8",
      "--locale=C",
      `--auth=${authentication}`,
      `--username=${this.user}`,
    ];
    try {
      const program = path.join(this.binaries.bin, "initdb");
      await run(
        program,
        ["-D", this.dataDirectory, ...defaults, ...passwordOption, ...initdb],
        this.#processOptions(),
      );
      await appendFile(path.join(this.dataDirectory, "postgresql.conf"), "include 'erserver.conf'\n");
    } catch (error) {
      throw new ErserverError(
        "ERS-904",
        `initdb of PostgreSQL ${this.version} failed: ${error instanceof Error ? error.message : String(error)}`,
        {
          subject: this.dataDirectory,
          remedy: "Read initdb's words above; most often the folder is not writable or the disk is full.",
          cause: error,
        },
      );
    } finally {
      await rm(passwordFile, { force: true });
    }
  }

  /** A bare environment: PGPORT, PGDATA, LC_ALL and TZ of whoever calls us would make servers differ from machine to machine. */
  #processOptions(): { cwd: string; env: NodeJS.ProcessEnv; uid?: number; gid?: number } {
    const { PATH, LD_LIBRARY_PATH } = process.env;
    const env = {
      PATH,
      LC_ALL: "C",
      TZ: "UTC",
      ...(LD_LIBRARY_PATH === undefined ? {} : { LD_LIBRARY_PATH }),
    };
    return { cwd: this.folder, env, ...this.#systemUser };
  }

  async #tryStart(port: number): Promise<boolean> {
    const log = openSync(this.#logFile, "a", 0o600);
    // The name stands in the command line: whoever cleans up later can tell that this process is the folder's.
    const args = [
      "-D",
      this.dataDirectory,
      "-p",
      String(port),
      "-c",
      `cluster_name=${path.basename(this.folder)}`,
    ];
    // Detached: Ctrl-C in the terminal is for us, who stop the servers in order. Files, not pipes, so that neither side waits.
    const postmaster = spawn(path.join(this.binaries.bin, "postgres"), args, {
      ...this.#processOptions(),
      detached: true,
      stdio: ["ignore", log, log],
    });
    closeSync(log);
    postmaster.unref();
    this.#postmaster = postmaster;
    this.#exited = new Promise((resolve) => {
      postmaster.once("exit", resolve);
      postmaster.once("error", resolve);
    });
    if (postmaster.pid !== undefined) writeFileSync(path.join(this.folder, "pid"), String(postmaster.pid));
    const deadline = Date.now() + START_TIMEOUT_MS;
    while (this.running && Date.now() < deadline) {
      if (await this.#isReady(postmaster.pid)) return true;
      await sleep(15);
    }
    await this.#exited;
    return false;
  }

  /**
   * As `pg_ctl start -w` sees it (src/include/utils/pidfile.h): line 1 is the postmaster's pid, line 8 its status. A connection would
   * tell less: it needs a password, and another server may have the port.
   */
  async #isReady(pid: number | undefined): Promise<boolean> {
    const lines = (await readFile(this.#pidFile, "utf8").catch(() => "")).split("\n");
    const status = lines[7]?.trim();
    return Number(lines[0]) === pid && (status === "ready" || status === "standby");
  }

  async #hasExited(timeoutMs: number): Promise<boolean> {
    const cancel = new AbortController();
    const timeout = sleep(timeoutMs, false, { signal: cancel.signal }).catch(() => false);
    const exited = await Promise.race([this.#exited.then(() => true), timeout]);
    cancel.abort();
    return exited;
  }

  #failure(what: string): ErserverError {
    const end = this.log().trimEnd().split("\n").slice(-10).join("\n");
    return new ErserverError("ERS-904", `PostgreSQL ${this.version} ${what}. The end of its log:\n${end}`, {
      subject: this.dataDirectory,
      remedy: "Read the server's words above; most often a setting, the port or the disk is the cause.",
    });
  }
}

/** Below the range from which systems give ports to outgoing connections, or a stopped server might find its port in use. */
async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(15_000, 32_000);
    if (await isFree(port)) return port;
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once("error", () => resolve(false));
    probe.listen(port, "127.0.0.1", () => probe.close(() => resolve(true)));
  });
}

let prepared: Promise<void> | undefined;

function prepareProcess(user: ServerUser | undefined): Promise<void> {
  prepared ??= (async () => {
    process.once("exit", destroyAll);
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, endBySignal);
    await removeLeftovers(user);
  })();
  return prepared;
}

function destroyAll(): void {
  for (const cluster of live) cluster.quit();
  for (const cluster of live) cluster.destroyNow();
  live.clear();
}

/** A listener takes the signal's default effect away; so where we are the only one, we give it back. */
function endBySignal(signal: NodeJS.Signals): void {
  if (process.listenerCount(signal) > 1) return;
  destroyAll();
  process.removeListener(signal, endBySignal);
  process.kill(process.pid, signal);
}
