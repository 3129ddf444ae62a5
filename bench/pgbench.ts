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

/**
 * Runs pgbench against the server's database postgres.
 * @returns what it prints: the report of the run.
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

/** The rate of transactions in pgbench's report, without the time to connect. Version 14 changed the words. */
export function parseTps(report: string): number {
  const tps =
    /^tps = ([\d.]+) \((?:without initial connection time|excluding connections establishing)\)/m.exec(
      report,
    )?.[1];
  if (tps === undefined) throw new Error(`not a report of pgbench:\n${report}`);
  return Number(tps);
}
