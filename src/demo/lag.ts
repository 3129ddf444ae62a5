import { setTimeout as sleep } from "node:timers/promises";
import type { Client } from "pg";
import { formatDuration } from "../observability/figures.ts";
import type { Replication } from "./replication.ts";
import { openSessions, type Servers, type TargetName } from "./servers.ts";
import { invoiceQuery, type Traffic } from "./traffic.ts";

/** Between two samples. */
const SAMPLE_MS = 60;

interface LagOptions {
  readonly servers: Servers;
  readonly replication: Replication;
  readonly traffic: Traffic;
  readonly signal: AbortSignal;
  readonly names: readonly TargetName[];
  readonly forMs: number;
}

/** Milliseconds from the commit on the source to a reader on the target, sampled all the time. */
export async function measureLag({
  servers,
  signal,
  replication,
  traffic,
  names,
  forMs,
}: LagOptions): Promise<Map<TargetName, number[]>> {
  await using sessions = await openSessions(servers, names);
  const lags = new Map<TargetName, number[]>(names.map((name) => [name, []]));
  const endMs = performance.now() + forMs;
  while (performance.now() < endMs) {
    for (const name of names) replication.status(name);
    const sought = invoiceQuery(await traffic.sellOne(sessions.source));
    const sample = async ({ name, client }: (typeof sessions.targets)[number]): Promise<void> => {
      lags.get(name)?.push(await arrival(client, sought, signal));
    };
    await Promise.all(sessions.targets.map(sample));
    await sleep(SAMPLE_MS, undefined, { signal });
  }
  return lags;
}

/** Milliseconds from now until a query on the target finds a row. */
export async function arrival(target: Client, sql: string, signal: AbortSignal): Promise<number> {
  const startMs = performance.now();
  for (;;) {
    signal.throwIfAborted();
    const { rowCount } = await target.query(sql);
    if (rowCount !== 0) return performance.now() - startMs;
    await sleep(1);
  }
}

/** Median and worst of milliseconds, for people. */
export function lagText(samples: readonly number[]): string {
  return `lag ${formatDuration(median(samples))}, at worst ${formatDuration(Math.max(0, ...samples))}`;
}

export function median(samples: readonly number[]): number {
  return samples.toSorted((a, b) => a - b)[Math.floor(samples.length / 2)] ?? 0;
}
