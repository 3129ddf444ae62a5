import type { QueryResultRow } from "pg";
import { parseLsn } from "../../src/change/lsn.ts";
import type { Config } from "../../src/config/config.ts";
import { type Cluster, type ClusterOptions, startCluster } from "../../src/demo/cluster.ts";
import type { PipelineStatus } from "../../src/pipeline/pipeline.ts";
import { openSession, type Side, testMajor } from "./clusters.ts";
import { expectEqualTables } from "./compare.ts";
import { type RunningPipeline, runPipeline, testConfig } from "./pipeline-context.ts";
import { type Proxy, startProxy } from "./proxy.ts";
import { until } from "./wait.ts";

/** Silence that is borne, so that tests need not wait for the default. */
export const TIMEOUT_MS = 2_000;

/** Which sessions are the pipeline's. */
export const OUR_OWN = "application_name like 'erserver own%'";

/** A server of the test's own behind a network of its own: both may fail. */
export interface OwnServer {
  readonly cluster: Cluster;
  readonly network: Proxy;
  /** Runs SQL past the network, in a session that ends with it. */
  query<Row extends QueryResultRow = QueryResultRow>(sql: string): Promise<Row[]>;
}

export interface OwnReplicationOptions {
  /** SQL for both sides. */
  readonly schema: string;
  /** SQL for the source before replication begins. */
  readonly rows?: string;
  readonly sourceServer?: Omit<ClusterOptions, "major">;
  readonly targetServer?: Omit<ClusterOptions, "major">;
  /** More YAML. */
  readonly config?: string;
  /** Parameters of the pipeline's connection URLs, such as `sslmode=require`. */
  readonly parameters?: string;
  /** Called before the pipeline starts. */
  readonly prepare?: (source: OwnServer, target: OwnServer) => Promise<void> | void;
}

export interface OwnReplication extends AsyncDisposable {
  readonly source: OwnServer;
  readonly target: OwnServer;
  readonly config: Config;
  readonly running: RunningPipeline;
  readonly status: PipelineStatus;
  /** One more pipeline with the same configuration, as a second process would run it. */
  another(): RunningPipeline;
  /** Waits until the pipeline says so; fails at once when it has ended with an error. */
  reaches(
    what: string,
    condition: (status: PipelineStatus) => boolean,
    timeout?: number,
  ): Promise<PipelineStatus>;
  /** Waits until the target has what is committed on the source now. */
  caughtUp(running?: RunningPipeline): Promise<void>;
  /** `caughtUp`, then every table equal by content. */
  expectEqual(): Promise<void>;
}

/** A source and a target that the test may stop, with a pipeline `own` between them. */
export async function startOwnReplication(options: OwnReplicationOptions): Promise<OwnReplication> {
  const opened: (AsyncDisposable | Disposable)[] = [];
  const dispose = async (): Promise<void> => {
    for (const one of opened.toReversed()) {
      if (Symbol.asyncDispose in one) await one[Symbol.asyncDispose]();
      else one[Symbol.dispose]();
    }
  };
  const open = async (side: Side, server: Omit<ClusterOptions, "major"> = {}): Promise<OwnServer> => {
    const cluster = await startCluster({ ...server, major: testMajor(side) });
    opened.push(cluster);
    const network = await startProxy({ target: { port: cluster.port } });
    opened.push(network);
    return { cluster, network, query: async (sql) => querySession(cluster, sql) };
  };
  try {
    const source = await open("source", options.sourceServer);
    const target = await open("target", options.targetServer);
    await source.query(options.schema);
    await target.query(options.schema);
    if (options.rows !== undefined) await source.query(options.rows);
    await options.prepare?.(source, target);
    const parameters = options.parameters === undefined ? "" : `?${options.parameters}`;
    const urls = [source, target].map(({ cluster, network }) => `${network.url(cluster.url())}${parameters}`);
    const config = testConfig(
      urls[0] as string,
      { own: urls[1] as string },
      `timeout: ${TIMEOUT_MS}ms\n${options.config ?? ""}`,
    );
    const start = (): RunningPipeline => {
      const running = runPipeline(config, "own");
      opened.push(running);
      return running;
    };
    const running = start();
    const reaches: OwnReplication["reaches"] = async (what, condition, timeout = 60_000) =>
      untilRunning(
        running,
        () => (condition(running.pipeline.status) ? running.pipeline.status : undefined),
        what,
        timeout,
      );
    const caughtUp: OwnReplication["caughtUp"] = async (served = running) => {
      const [row] = await source.query<{ lsn: string }>(
        "select pg_logical_emit_message(true, 'test', '')::text as lsn",
      );
      const lsn = parseLsn(row?.lsn ?? "");
      await untilRunning(
        served,
        () => (served.pipeline.status.appliedLsn ?? 0n) >= lsn,
        `the target to reach ${row?.lsn}`,
        60_000,
      );
    };
    return {
      source,
      target,
      config,
      running,
      get status() {
        return running.pipeline.status;
      },
      another: start,
      reaches,
      caughtUp,
      expectEqual: async () => {
        await caughtUp();
        await expectEqualTables(source.cluster.url(), target.cluster.url());
      },
      [Symbol.asyncDispose]: dispose,
    };
  } catch (error) {
    await dispose();
    throw error;
  }
}

async function untilRunning<T>(
  running: RunningPipeline,
  condition: () => T | undefined,
  what: string,
  timeout: number,
): Promise<NonNullable<T>> {
  const reached = until(condition, { what, timeout }).then((value) => ({ value }));
  reached.catch(() => undefined);
  const outcome = await Promise.race([reached, running.finished.then(() => undefined)]);
  if (outcome === undefined) throw new Error(`the pipeline ended before ${what}`);
  return outcome.value;
}

async function querySession<Row extends QueryResultRow>(cluster: Cluster, sql: string): Promise<Row[]> {
  const client = await openSession(cluster.url());
  try {
    const answer = await client.query<Row>(sql);
    const answers = Array.isArray(answer) ? (answer as (typeof answer)[]) : [answer];
    return answers.at(-1)?.rows ?? [];
  } finally {
    await client.end();
  }
}
