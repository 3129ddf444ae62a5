import { type ChildProcess, execFile, spawn } from "node:child_process";
import {
  access,
  appendFile,
  chmod,
  cp,
  mkdir,
  mkdtemp,
  readFile,
  rm,
  symlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir, userInfo } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { type Cluster, startCluster } from "../../src/demo/cluster.ts";
import { testMajor } from "./clusters.ts";
import type { MachineName, TutorialBlock } from "./tutorial.ts";
import { until } from "./wait.ts";

const run = promisify(execFile);
const root = path.join(import.meta.dirname, "../..");

/** The addresses of the page and of the test: to PostgreSQL the two are different machines. */
const ADDRESSES = {
  master: { page: "192.168.1.65", here: "127.0.0.1" },
  slave: { page: "192.168.1.66", here: "127.0.0.2" },
} as const;

export interface Ran {
  /** Standard output and error as they came, in the page's words, without empty lines at the end. */
  readonly output: string;
  readonly exit: number;
}

/** PostgreSQL's client programs, which servers made for tests come without; undefined where the system has none. */
export async function clientPrograms(): Promise<string | undefined> {
  const bindir = await run("pg_config", ["--bindir"]).then(
    ({ stdout }) => stdout.trim(),
    () => undefined,
  );
  const folders = [bindir ?? "", ...(process.env["PATH"] ?? "").split(path.delimiter)];
  for (const folder of folders) {
    const programs = ["psql", "pg_dump", "pg_dumpall", "createdb", "createuser", "dropdb"];
    const all = await Promise.all(
      programs.map((program) =>
        access(path.join(folder, program)).then(
          () => true,
          () => false,
        ),
      ),
    );
    if (folder !== "" && all.every(Boolean)) return folder;
  }
  return undefined;
}

/** A machine of the tutorial's reader: a home folder, a shell in it, and a server that the shell's user is the superuser of. */
export class Machine {
  readonly name: MachineName;
  readonly cluster: Cluster;
  readonly #home: string;
  readonly #shell: ChildProcess;
  #printed = "";
  #count = 0;

  constructor(name: MachineName, cluster: Cluster, home: string, env: Readonly<Record<string, string>>) {
    this.name = name;
    this.cluster = cluster;
    this.#home = home;
    // Without a terminal of its own, and a process group that ends as one.
    this.#shell = spawn("bash", ["--noprofile", "--norc"], {
      cwd: home,
      detached: true,
      env: { ...env, HOME: home },
      stdio: ["pipe", "pipe", "ignore"],
    });
    this.#shell.stdout?.on("data", (chunk: Buffer) => (this.#printed += chunk.toString()));
    this.#shell.stdin?.write("exec 2>&1\n");
  }

  /** Runs commands in the shell in which those before them ran. */
  async run({ commands }: Pick<TutorialBlock, "commands">): Promise<Ran> {
    const file = path.join(this.#home, `.block-${++this.#count}`);
    const end = `-- end of block ${this.#count}: `;
    await writeFile(file, `${this.#here(commands)}\n`);
    this.#printed = "";
    // The shell itself reads its commands from standard input.
    this.#shell.stdin?.write(`. ${file} < /dev/null\nprintf '\\n%s%s\\n' '${end}' $?\n`);
    const answer = await until(() => new RegExp(`^([^]*)\\n${end}(\\d+)\\n`).exec(this.#printed), {
      what: `the end of: ${commands}`,
      timeout: 120_000,
    });
    return { output: this.#onPage((answer[1] ?? "").replace(/\n+$/, "")), exit: Number(answer[2]) };
  }

  /** Of the superuser, whom the server knows by the operating system's user. */
  url(database: string): string {
    const { folder, port } = this.cluster;
    return `postgres://postgres@socket:${port}/${database}?host=${encodeURIComponent(folder)}`;
  }

  kill(): void {
    if (this.#shell.pid !== undefined && this.#shell.exitCode === null)
      process.kill(-this.#shell.pid, "SIGKILL");
  }

  #here(text: string): string {
    return Object.values(ADDRESSES).reduce((all, { page, here }) => all.replaceAll(page, here), text);
  }

  #onPage(text: string): string {
    const { folder, port } = this.cluster;
    const named = text.replaceAll(folder, "/var/run/postgresql").replaceAll(String(port), "5432");
    return Object.values(ADDRESSES).reduce((all, { page, here }) => all.replaceAll(here, page), named);
  }
}

/**
 * Two machines, each with a server on the same port, which asks everybody for a password but the superuser at home. The master has
 * erserver, of which `main` is the compiled program; the slave's server is not running.
 */
export class Machines implements AsyncDisposable {
  readonly #folder: string;
  readonly #stop = new AbortController();
  readonly #clusters: Cluster[] = [];
  readonly #serving: Promise<void>[] = [];
  readonly #machines = new Map<MachineName, Machine>();

  private constructor(folder: string) {
    this.#folder = folder;
  }

  static async start(programs: string, dist: string): Promise<Machines> {
    const machines = new Machines(await mkdtemp(path.join(tmpdir(), "erserver-tutorial-")));
    try {
      await machines.#start(programs, dist);
      return machines;
    } catch (error) {
      await machines[Symbol.asyncDispose]();
      throw error;
    }
  }

  of(name: MachineName): Machine {
    return this.#machines.get(name) as Machine;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    for (const machine of this.#machines.values()) machine.kill();
    await Promise.all(this.#serving);
    for (const cluster of this.#clusters) await cluster.dispose();
    await rm(this.#folder, { recursive: true, force: true });
  }

  async #start(programs: string, dist: string): Promise<void> {
    const master = await this.#cluster("master");
    const slave = await this.#cluster("slave", master.port);
    await slave.stop();
    for (const [name, cluster] of [
      ["master", master],
      ["slave", slave],
    ] as const)
      this.#machines.set(name, await this.#machine(name, cluster, programs));
    const erserver = path.join(this.#folder, "master/erserver");
    await mkdir(erserver);
    for (const part of ["rserv", "docs"])
      await cp(path.join(root, part), path.join(erserver, part), { recursive: true });
    await symlink(dist, path.join(erserver, "dist"));
    await writeProgram(path.join(this.#folder, "master-bin/erserver"), ERSERVER);
  }

  async #cluster(name: MachineName, port?: number): Promise<Cluster> {
    const { here } = ADDRESSES[name];
    const cluster = await startCluster({
      major: testMajor(name === "master" ? "source" : "target"),
      authentication: "scram-sha-256",
      password: "nobody uses it",
      // What the servers are told is what a server is that nobody has told anything.
      settings: {
        listen_addresses: here,
        wal_level: "replica",
        max_wal_senders: "0",
        max_replication_slots: "0",
      },
      ...(port === undefined ? {} : { port }),
    });
    this.#clusters.push(cluster);
    // As packages for Linux have it, with the test's user in the place of postgres; and the way from a machine to itself.
    const lines = ["local all postgres peer map=reader"];
    if (name === "master") lines.push(`host all all ${here}/32 scram-sha-256`);
    await writeFile(path.join(cluster.dataDirectory, "pg_hba.conf"), `${lines.join("\n")}\n`);
    await appendFile(
      path.join(cluster.dataDirectory, "pg_ident.conf"),
      `reader ${userInfo().username} postgres\n`,
    );
    cluster.reload();
    return cluster;
  }

  async #machine(name: MachineName, cluster: Cluster, programs: string): Promise<Machine> {
    const home = path.join(this.#folder, name);
    const bin = path.join(this.#folder, `${name}-bin`);
    await mkdir(home);
    await mkdir(bin);
    await writeProgram(path.join(bin, "scp"), SCP);
    await writeProgram(path.join(bin, "pg_ctl"), PG_CTL);
    const hosts = path.join(this.#folder, "hosts");
    await mkdir(hosts, { recursive: true });
    await symlink(home, path.join(hosts, ADDRESSES[name].here));
    const request = path.join(this.#folder, `${name}-request`);
    this.#serving.push(this.#serve(cluster, request));
    const machinePath = [bin, programs, path.dirname(process.execPath), process.env["PATH"]];
    return new Machine(name, cluster, home, {
      PATH: machinePath.join(path.delimiter),
      LC_ALL: "C",
      TZ: "UTC",
      PGUSER: "postgres",
      PGHOST: cluster.folder,
      PGPORT: String(cluster.port),
      REQUEST: request,
      HOSTS: hosts,
    });
  }

  /** Does what the machine's `pg_ctl` asks for: the server is a child of ours, and never root's. */
  async #serve(cluster: Cluster, request: string): Promise<void> {
    while (!this.#stop.signal.aborted) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      const asked = (await readFile(request, "utf8").catch(() => "")).trim();
      if (asked === "") continue;
      if (asked === "start") await cluster.start();
      else await cluster.stop();
      await rm(request);
    }
  }
}

async function writeProgram(file: string, text: string): Promise<void> {
  await writeFile(file, text);
  await chmod(file, 0o755);
}

/** As npm link makes it. */
const ERSERVER = `#!/bin/sh
exec node ~/erserver/dist/cli/main.js "$@"
`;

/** The other machine is a folder. */
const SCP = `#!/bin/bash
args=()
for arg; do
  case $arg in
    -q) ;;
    *:*) args+=("$HOSTS/\${arg%%:*}/\${arg#*:}") ;;
    *) args+=("$arg") ;;
  esac
done
exec cp "\${args[@]}"
`;

/** Whoever runs the tests may be root, whom PostgreSQL's own refuses. */
const PG_CTL = `#!/bin/bash
for what; do :; done
echo "$what" > "$REQUEST.new" && mv "$REQUEST.new" "$REQUEST"
while [ -e "$REQUEST" ]; do sleep 0.05; done
`;
