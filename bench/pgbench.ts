import { execFile } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import type { Cluster } from "../src/demo/cluster.ts";

const run = promisify(execFile);

const DEBIAN = "/usr/lib/postgresql";

/**
 * Path of the newest pgbench in Debian's folders, else of the one in PATH. Any version works with any server; the embedded servers
 * come without it.
 * @throws Error that says what to install.
 */
export function findPgbench(): string {
  const majors = existsSync(DEBIAN) ? readdirSync(DEBIAN).map(Number) : [];
  const folders = [
    // First: /usr/bin/pgbench of Debian is a wrapper that chooses by the clusters that the system knows.
    ...majors.toSorted((a, b) => b - a).map((major) => path.join(DEBIAN, String(major), "bin")),
    ...(process.env["PATH"] ?? "").split(path.delimiter),
  ];
  const found = folders.map((folder) => path.join(folder, "pgbench")).find((file) => existsSync(file));
  if (found !== undefined) return found;
  throw new Error(
    "pgbench was not found in PATH or /usr/lib/postgresql. On Debian and Ubuntu it comes with the server: apt-get install postgresql",
  );
}

/** What pgbench says of a run. */
export interface PgbenchResult {
  readonly transactions: number;
  readonly tps: number;
}

/**
 * Runs pgbench against the server's database postgres.
 * @param durable false: the sessions have `synchronous_commit = off`.
 */
export async function pgbench(
  cluster: Cluster,
  args: readonly string[],
  { durable = true } = {},
): Promise<string> {
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("PG"));
  const env = {
    ...Object.fromEntries(inherited),
    PGOPTIONS: durable ? "" : "-c synchronous_commit=off",
  };
  const server = ["-h", "127.0.0.1", "-p", String(cluster.port), "-U", cluster.user];
  const { stdout } = await run(findPgbench(), [...server, ...args, "postgres"], {
    env,
    maxBuffer: 64 * 1024 * 1024,
  });
  return stdout;
}

/** Reads the report at the end of a run; the words are the same from version 10 to 18, but for what follows the numbers. */
export function parsePgbench(report: string): PgbenchResult {
  const transactions = /^number of transactions actually processed: (\d+)/m.exec(report)?.[1];
  const tps = /^tps = ([\d.]+)/m.exec(report)?.[1];
  if (transactions === undefined || tps === undefined) throw new Error(`not a report of pgbench:\n${report}`);
  return { transactions: Number(transactions), tps: Number(tps) };
}
