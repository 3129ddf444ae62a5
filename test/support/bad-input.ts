import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "vitest";
import type { Config, TargetConfig } from "../../src/config/config.ts";
import type { ErrorCode } from "../../src/errors/codes.ts";
import { ErserverError } from "../../src/errors/erserver-error.ts";
import type { CommandOptions } from "../../src/pipeline/context.ts";
import { type FreshDatabase, freshDatabase, openSession, type Server } from "./clusters.ts";
import { type RunningPipeline, testLog } from "./pipeline-context.ts";
import { until } from "./wait.ts";

/** What an operator is told. */
export interface Refusal {
  readonly code: ErrorCode;
  /** The object: it stands in the message or is the subject. */
  readonly names: string;
  /** Part of what to do: the command, or the setting. */
  readonly remedy: string | RegExp;
}

/** Everything that a refusal owes its reader; what it must not do is for the caller to compare. */
function expectTold(
  error: { code: string; message: string; subject?: string | undefined; remedy: string } | undefined,
  { code, names, remedy }: Refusal,
): void {
  expect(error).toMatchObject({ code });
  expect(`${error?.subject} ${error?.message}`).toContain(names);
  expect(error?.remedy).toMatch(remedy);
  // Something to fill in is not exact, but for the kinds of references.
  expect(error?.remedy.replace(/\$\{(?:env|file):…\}/g, "")).not.toContain("…");
}

export async function expectRefused(work: Promise<unknown>, refusal: Refusal): Promise<void> {
  const error: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error, `to be refused with ${refusal.code}`).toBeInstanceOf(ErserverError);
  expectTold(error as ErserverError, refusal);
  expect((error as ErserverError).entry.exit).toBeGreaterThan(0);
}

/** The pipeline ends by itself, in state `stopped`, and says why. */
export async function expectStopped(running: RunningPipeline, refusal: Refusal): Promise<void> {
  await expectRefused(running.finished, refusal);
  expect(running.pipeline.status.state).toBe("stopped");
  expectTold(running.pipeline.status.error, refusal);
}

/** The pipeline goes on trying, and says why it cannot. */
export async function expectOffline(
  running: RunningPipeline,
  side: "source" | "target",
  refusal: Refusal,
): Promise<void> {
  await until(() => running.pipeline.status.state === "offline", { what: "the pipeline to be offline" });
  expect(running.pipeline.status.side).toBe(side);
  expectTold(running.pipeline.status.error, refusal);
  const ended = await Promise.race([running.finished.then(() => true), sleep(0, false)]);
  expect(ended).toBe(false);
}

export function commandOptions(config: Config): CommandOptions & { readonly signal: AbortSignal } {
  return {
    config,
    target: config.targets[0] as TargetConfig,
    log: testLog(),
    signal: new AbortController().signal,
  };
}

/** What we could have made in a database, by name. */
export async function ourObjects(url: string): Promise<string[]> {
  const rows = await querySession<{ name: string }>(
    url,
    `select 'slot ' || slot_name as name from pg_replication_slots where database = current_database()
     union all select 'publication ' || pubname from pg_publication
     union all select 'schema ' || nspname from pg_namespace where nspname = 'erserver' order by 1`,
  );
  return rows.map(({ name }) => name);
}

/** The rows of public.t with where they lie and who wrote them: rows that were written anew are other rows. */
export async function rowVersions(url: string): Promise<unknown[]> {
  const [table] = await querySession<{ there: boolean }>(
    url,
    "select to_regclass('public.t') is not null as there",
  );
  if (table?.there !== true) return [];
  return querySession(
    url,
    "select ctid::text, xmin::text, t::text as row, pg_relation_filenode('t')::text as file from public.t",
  );
}

/** How far the target is; undefined before it has begun. */
export async function recordedLsn(url: string): Promise<string | undefined> {
  const rows = await querySession<{ lsn: string }>(url, "select lsn::text from erserver.progress");
  return rows[0]?.lsn;
}

/** A database whose server may be stopped in between: each query has a session of its own. */
export async function restartableDatabase(server: Server, name?: string): Promise<FreshDatabase> {
  const database = await freshDatabase(server, name === undefined ? {} : { name });
  return { ...database, query: (sql) => querySession(database.url, sql) };
}

export async function querySession<Row extends object>(url: string, sql: string): Promise<Row[]> {
  const client = await openSession(url);
  try {
    const answer = await client.query(sql);
    const answers = Array.isArray(answer) ? (answer as (typeof answer)[]) : [answer];
    return (answers.at(-1)?.rows ?? []) as Row[];
  } finally {
    await client.end();
  }
}
