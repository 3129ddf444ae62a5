import type { TestProject } from "vitest/node";
import { type Cluster, startCluster } from "../../src/demo/cluster.ts";
import type { Side } from "./clusters.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** Port of the shared server of each side. */
    ports: Record<Side, number>;
  }
}

interface Shared {
  readonly cluster: Promise<Cluster>;
  users: number;
}

/** Every project has its own copy of this module; the servers are shared by all of them. */
const registry = globalThis as typeof globalThis & { erserverSharedServers?: Map<string, Shared> };
const servers = (registry.erserverSharedServers ??= new Map());

/** Vitest runs this once for each project that has tests to run, before any test, and the returned function at the end. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const { ERSERVER_TEST_SOURCE, ERSERVER_TEST_TARGET } = project.config.env;
  const keys = [`source-${ERSERVER_TEST_SOURCE}`, `target-${ERSERVER_TEST_TARGET}`] as const;
  try {
    const [source, target] = await Promise.all([acquire(keys[0]), acquire(keys[1])]);
    project.provide("ports", { source: source.port, target: target.port });
  } catch (error) {
    await release(keys);
    throw error;
  }
  return () => release(keys);
}

/** Two servers even if they are of one major: a slot's start waits for all transactions of its server, the target's as well. */
function acquire(key: string): Promise<Cluster> {
  let shared = servers.get(key);
  if (shared === undefined) {
    const major = Number(key.split("-")[1]);
    // Tests run side by side and may leave an origin behind: these must never be what a test runs out of.
    const settings = {
      max_replication_slots: "200",
      max_wal_senders: "100",
      max_connections: "300",
      ...(major >= 18 ? { max_active_replication_origins: "200" } : {}),
    };
    shared = { cluster: startCluster({ major, settings }), users: 0 };
    servers.set(key, shared);
  }
  shared.users++;
  return shared.cluster;
}

async function release(keys: readonly string[]): Promise<void> {
  for (const key of keys) {
    const shared = servers.get(key);
    if (shared === undefined || --shared.users > 0) continue;
    servers.delete(key);
    const cluster = await shared.cluster.catch(() => undefined);
    await cluster?.dispose();
  }
}
