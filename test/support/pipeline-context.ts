import { loadConfig } from "../../src/config/load.ts";
import type { Config } from "../../src/config/config.ts";
import { systemEnvironment } from "../../src/config/environment.ts";
import { parseLsn } from "../../src/change/lsn.ts";
import { createLogger, type Logger } from "../../src/observability/log.ts";
import { Pipeline, type PipelineStatus } from "../../src/pipeline/pipeline.ts";
import { type FreshDatabase, freshDatabase, sharedCluster } from "./clusters.ts";
import { expectEqualTables } from "./compare.ts";
import { until } from "./wait.ts";

/** Configuration text that goes through the real loader; `extra` is more YAML. */
export function testConfig(sourceUrl: string, targets: Readonly<Record<string, string>>, extra = ""): Config {
  const lines = Object.entries(targets).map(([name, url]) => `  ${name}: ${url}`);
  const text = `source: ${sourceUrl}\ntargets:\n${lines.join("\n")}\n${extra}`;
  const config = loadConfig("erserver.yaml", { ...systemEnvironment(), readFile: () => text });
  const write = process.env["ERSERVER_TEST_WRITE"] as Config["apply"]["write"] | undefined;
  const gear = process.env["ERSERVER_TEST_GEAR"] as Config["gear"] | undefined;
  const capture = process.env["ERSERVER_TEST_CAPTURE"] as Config["capture"] | undefined;
  const workers = process.env["ERSERVER_TEST_WORKERS"];
  const distance = process.env["ERSERVER_TEST_DISTANCE"] as Config["apply"]["distance"] | undefined;
  // Small groups, so that there are many to be written at the same time.
  const group = workers === undefined || extra.includes("group:") ? {} : { transactions: 2 };
  return {
    ...config,
    ...(capture === undefined || extra.includes("capture:") ? {} : { capture }),
    tables: { ...config.tables, ...(capture === "trigger" ? { withoutKey: "refresh" } : {}) },
    ...(gear === undefined || extra.includes("gear:") ? {} : { gear }),
    apply: {
      ...config.apply,
      ...(write === undefined || extra.includes("write:") ? {} : { write }),
      ...(distance === undefined || extra.includes("distance:") ? {} : { distance }),
      ...(workers === undefined || extra.includes("workers:") ? {} : { workers: Number(workers) }),
      group: { ...config.apply.group, ...group },
    },
  };
}

/** The state of a pipeline that has everything: who is made to read in bulk never counts as being there. */
export const THERE = process.env["ERSERVER_TEST_GEAR"] === "bulk" ? "catching-up (bulk)" : "streaming";

/** Silent, unless a test is to be looked at: ERSERVER_TEST_LOG=debug. */
export function testLog(): Logger {
  const level = process.env["ERSERVER_TEST_LOG"];
  return createLogger(
    level === undefined ? { level: "error", write: () => {} } : { level: level as "debug" },
  );
}

export interface RunningPipeline extends AsyncDisposable {
  readonly pipeline: Pipeline;
  readonly capture: Config["capture"];
  readonly statuses: readonly PipelineStatus[];
  /** Settles when `run` does. */
  readonly finished: Promise<void>;
  stop(): Promise<void>;
}

export function runPipeline(
  config: Config,
  name: string,
  options: { adopt?: boolean; log?: Logger } = {},
): RunningPipeline {
  const target = config.targets.find((candidate) => candidate.name === name);
  if (target === undefined) throw new Error(`no target ${name}`);
  const abort = new AbortController();
  const statuses: PipelineStatus[] = [];
  const pipeline = new Pipeline({
    config,
    target,
    log: options.log ?? testLog(),
    occupied: options.adopt === true ? "adopt" : "refuse",
    onStatus: (status) => {
      if (status.state !== statuses.at(-1)?.state) statuses.push(status);
    },
  });
  const finished = pipeline.run(abort.signal);
  finished.catch(() => {});
  const stop = async (): Promise<void> => {
    abort.abort();
    await finished.catch(() => {});
  };
  return { pipeline, capture: config.capture, statuses, finished, stop, [Symbol.asyncDispose]: stop };
}

export interface ReplicationOptions {
  /** SQL for both sides, or for each. */
  readonly schema?: string;
  readonly sourceSchema?: string;
  readonly targetSchema?: string;
  /** SQL for the source before replication begins. */
  readonly rows?: string;
  /** More YAML. */
  readonly config?: string;
  readonly encodings?: { readonly source?: string; readonly target?: string };
  readonly adopt?: boolean;
  readonly log?: Logger;
}

/** A source and a target database of their own, and a pipeline between them that runs. */
export interface Replication extends AsyncDisposable {
  readonly source: FreshDatabase;
  readonly target: FreshDatabase;
  readonly config: Config;
  running: RunningPipeline;
  /** Waits until the target has everything that is committed on the source now. */
  caughtUp(): Promise<void>;
  /** `caughtUp`, then every table equal by content. */
  expectEqual(tables?: readonly string[]): Promise<void>;
  restart(): Promise<void>;
}

export async function startReplication(options: ReplicationOptions): Promise<Replication> {
  const databaseOptions = (encoding: string | undefined): { encoding?: string } =>
    encoding === undefined ? {} : { encoding };
  const source = await freshDatabase(sharedCluster("source"), databaseOptions(options.encodings?.source));
  const target = await freshDatabase(sharedCluster("target"), databaseOptions(options.encodings?.target));
  const pipelineName = source.name;
  try {
    for (const sql of [options.schema, options.sourceSchema, options.rows])
      if (sql !== undefined) await source.query(sql);
    for (const sql of [options.schema, options.targetSchema]) if (sql !== undefined) await target.query(sql);
  } catch (error) {
    await target[Symbol.asyncDispose]();
    await source[Symbol.asyncDispose]();
    throw error;
  }
  const config = testConfig(source.url, { [pipelineName]: target.url }, options.config ?? "");
  const { adopt = false, log = testLog() } = options;
  const start = (): RunningPipeline => runPipeline(config, pipelineName, { adopt, log });
  const replication: Replication = {
    source,
    target,
    config,
    running: start(),
    caughtUp: async () => caughtUp(source, replication.running),
    expectEqual: async (tables) => {
      await replication.caughtUp();
      await expectEqualTables(source.url, target.url, tables);
    },
    restart: async () => {
      await replication.running.stop();
      replication.running = start();
    },
    [Symbol.asyncDispose]: async () => {
      await replication.running.stop();
      await target[Symbol.asyncDispose]();
      await source[Symbol.asyncDispose]();
    },
  };
  return replication;
}

/** Waits until the pipeline has applied what is committed on the source now; fails at once when it has stopped. */
export async function caughtUp(
  source: FreshDatabase,
  running: RunningPipeline,
  timeout = 60_000,
): Promise<void> {
  const isThere = await arrival(source, running);
  const reached = until(isThere, { what: "the target to have what the source has", timeout }).then(
    () => true,
  );
  reached.catch(() => {});
  const stoppedFirst = running.finished.then(() => false);
  if (!(await Promise.race([reached, stoppedFirst])))
    throw new Error("the pipeline ended before it caught up");
}

/** Whether what is committed now is on the target. */
async function arrival(
  source: FreshDatabase,
  { pipeline, capture }: RunningPipeline,
): Promise<() => boolean | Promise<boolean>> {
  const applied = (): bigint => pipeline.status.appliedLsn ?? 0n;
  if (capture === "trigger") {
    let enough: bigint | undefined;
    return async () => {
      // Whatever happens uses a number up.
      await source.query("select txid_current()");
      // One that is being written and one that is being read may have begun before.
      if (applied() > 0n) enough ??= applied() + 3n;
      return enough !== undefined && applied() >= enough;
    };
  }
  const [row] = await source.query<{ lsn: string }>(
    "select pg_logical_emit_message(true, 'test', '') as lsn",
  );
  const lsn = parseLsn(row?.lsn ?? "");
  return () => applied() >= lsn;
}
