import { appendFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Config, TargetConfig } from "../config/config.ts";
import { systemEnvironment } from "../config/environment.ts";
import { loadConfig } from "../config/load.ts";
import { toErserverError } from "../errors/erserver-error.ts";
import { createLogger, type Logger } from "../observability/log.ts";
import { Pipeline, type PipelineStatus } from "../pipeline/pipeline.ts";
import { type Servers, TARGETS, type TargetName } from "./servers.ts";

/** What `erserver run` does, in this process, for the demo's servers. */
export class Replication implements AsyncDisposable {
  readonly configFile: string;
  readonly config: Config;
  readonly log: Logger;
  readonly #pipelines = new Map<string, Pipeline>();
  readonly #stop = new AbortController();
  #runs: Promise<void>[] = [];
  #failure: Error | undefined;

  private constructor(configFile: string) {
    this.configFile = configFile;
    // The caller's PG* variables and service files are about other servers.
    this.config = loadConfig(configFile, { ...systemEnvironment(), env: {} });
    const file = path.join(path.dirname(configFile), "erserver.log");
    this.log = createLogger({ level: "info", format: "human", write: (line) => appendFileSync(file, line) });
  }

  static async prepare(servers: Servers): Promise<Replication> {
    return new Replication(await servers.writeConfig());
  }

  start(): void {
    this.#runs = this.config.targets.map(async (target) => {
      const pipeline = new Pipeline({ config: this.config, target, log: this.log });
      this.#pipelines.set(target.name, pipeline);
      try {
        await pipeline.run(this.#stop.signal);
      } catch (error) {
        this.#failure ??= toErserverError(error);
      }
    });
  }

  target(name: TargetName): TargetConfig {
    return this.config.targets[TARGETS.indexOf(name)] as TargetConfig;
  }

  /** What the pipeline to this target does now. Throws what has stopped any of them. */
  status(name: TargetName): PipelineStatus {
    if (this.#failure !== undefined) throw this.#failure;
    return (this.#pipelines.get(name) as Pipeline).status;
  }

  /** Waits until the pipeline is in this state, and returns the milliseconds that it took. */
  async reaches(name: TargetName, state: PipelineStatus["state"], signal: AbortSignal): Promise<number> {
    const startMs = performance.now();
    while (this.status(name).state !== state) await sleep(10, undefined, { signal });
    return performance.now() - startMs;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#runs);
  }
}
