import { writeFile } from "node:fs/promises";
import path from "node:path";
import { Client } from "pg";
import { type Cluster, startCluster } from "./cluster.ts";
import { loadBooktown, loadBooktownSchema } from "./booktown.ts";

const DATABASE = "booktown";

export const TARGETS = ["london", "tokyo"] as const;
export type TargetName = (typeof TARGETS)[number];

export interface ServerOptions {
  readonly sourceMajor: number;
  readonly targetMajor: number;
}

/** The demo's source and its targets, running, with empty databases. */
export class Servers implements AsyncDisposable {
  readonly source: Cluster;
  readonly targets: Readonly<Record<TargetName, Cluster>>;

  constructor(source: Cluster, targets: Readonly<Record<TargetName, Cluster>>) {
    this.source = source;
    this.targets = targets;
  }

  get all(): readonly Cluster[] {
    return [this.source, ...Object.values(this.targets)];
  }

  url(cluster: Cluster): string {
    return cluster.url(DATABASE);
  }

  /** Definitions everywhere, rows on the source. */
  async load(): Promise<void> {
    const targets = Object.values(this.targets).map((target) => loadBooktownSchema(this.url(target)));
    await Promise.all([loadBooktown(this.url(this.source)), ...targets]);
  }

  /** Writes an `erserver.yaml` for these servers. It goes with them. */
  async writeConfig(): Promise<string> {
    const targets = TARGETS.map((name) => `  ${name}: ${this.url(this.targets[name])}\n`);
    const file = path.join(this.source.folder, "erserver.yaml");
    await writeFile(file, `source: ${this.url(this.source)}\ntargets:\n${targets.join("")}`);
    return file;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.all.map((cluster) => cluster.dispose()));
  }
}

/** Starts all of them or none. */
export async function startServers({ sourceMajor, targetMajor }: ServerOptions): Promise<Servers> {
  const starts = await Promise.allSettled(
    [sourceMajor, targetMajor, targetMajor].map((major) => startCluster({ major })),
  );
  const started = starts.flatMap((start) => (start.status === "fulfilled" ? [start.value] : []));
  try {
    for (const start of starts) if (start.status === "rejected") throw start.reason;
    const [source, london, tokyo] = started as [Cluster, Cluster, Cluster];
    await Promise.all(started.map((cluster) => createDatabase(cluster)));
    return new Servers(source, { london, tokyo });
  } catch (error) {
    await Promise.all(started.map((cluster) => cluster.dispose()));
    throw error;
  }
}

async function createDatabase(cluster: Cluster): Promise<void> {
  const client = await connect(cluster.url());
  try {
    await client.query(`create database ${DATABASE}`);
  } finally {
    await client.end();
  }
}

/** A session whose server may be stopped under it. */
export async function connect(url: string): Promise<Client> {
  const client = new Client({ connectionString: url, application_name: "bookshop" });
  client.on("error", () => {});
  await client.connect();
  return client;
}

/** Sessions of readers and writers, for a scope. */
interface Sessions extends AsyncDisposable {
  readonly source: Client;
  readonly targets: readonly { readonly name: TargetName; readonly client: Client }[];
}

export async function openSessions(servers: Servers, names: readonly TargetName[]): Promise<Sessions> {
  const source = await connect(servers.url(servers.source));
  const targets = await Promise.all(
    names.map(async (name) => ({ name, client: await connect(servers.url(servers.targets[name])) })),
  );
  return {
    source,
    targets,
    [Symbol.asyncDispose]: async () => {
      await Promise.all(
        [source, ...targets.map(({ client }) => client)].map((client) => client.end().catch(() => {})),
      );
    },
  };
}
