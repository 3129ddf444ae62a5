import { setTimeout as sleep } from "node:timers/promises";
import type { Client } from "pg";
import { type Cluster, startCluster } from "../../src/demo/cluster.ts";
import { openSession } from "./clusters.ts";
import { expectEqualTables } from "./compare.ts";
import { FAULTS, OUR_SESSIONS, type Site, type Victim } from "./faults.ts";
import { startProxy } from "./proxy.ts";
import { ReplicatorHome, ReplicatorProcess } from "./replicator-process.ts";
import { SeededRandom } from "./soak-random.ts";
import { SoakReader } from "./soak-reader.ts";
import { SOAK_SCHEMA, soakRows, Workload } from "./soak-workload.ts";
import { until } from "./wait.ts";

export interface SoakOptions {
  readonly seed: number;
  readonly sourceMajor: number;
  readonly targetMajor: number;
  /** How many things go wrong. */
  readonly faults: number;
  /** How many of them during the first copy. */
  readonly copyFaults: number;
  readonly writers: number;
  readonly historyRows: number;
  readonly largeMegabytes: { readonly from: number; readonly to: number };
  /** How it reads and writes: `apply` as one line of YAML, `gear`, and `capture`. */
  readonly way: { readonly capture: "wal" | "trigger"; readonly gear: string; readonly apply: string };
  readonly say: (line: string) => void;
}

/** Short, so that silence is noticed in the time that a test has. */
const TIMEOUT_MS = 2_000;
/** Of recovery from whatever has happened: the longest backoff and a good deal of work. */
const RECOVERY_MS = 120_000;
/** Of a server that knows that a client is gone, and may be busy. */
const SESSIONS_END_MS = 10_000;
/** How fast the first copy goes, so that there is time to disturb it: below what one read from a socket gives at a time. */
const COPY_BYTES_PER_SECOND = 1_000_000;

/** Runs one soak, from an empty target to the comparison of everything. Throws with seed, faults and log when a rule is broken. */
export async function runSoak(options: SoakOptions): Promise<void> {
  await using soak = await Soak.prepare(options);
  await soak.run();
}

class Soak implements AsyncDisposable {
  readonly #options: SoakOptions;
  readonly #site: Site;
  readonly #opened: Opened;
  readonly #random: SeededRandom;
  readonly #startedMs = performance.now();
  readonly #log: string[] = [];
  readonly #held = new Map<Victim, Promise<unknown>>();
  readonly #broken: Promise<never>;
  #break!: (error: unknown) => void;
  #struck = 0;

  private constructor(options: SoakOptions, site: Site, opened: Opened) {
    this.#options = options;
    this.#site = site;
    this.#opened = opened;
    this.#random = new SeededRandom(options.seed);
    this.#broken = new Promise<never>((_resolve, reject) => {
      this.#break = reject;
    });
    this.#broken.catch(() => undefined);
  }

  static async prepare(options: SoakOptions): Promise<Soak> {
    const opened: Opened = [];
    try {
      return new Soak(options, await Soak.#open(options, opened), opened);
    } catch (error) {
      await close(opened);
      throw error;
    }
  }

  static async #open(options: SoakOptions, opened: Opened): Promise<Site> {
    const keep = <T extends AsyncDisposable | Disposable>(value: T): T => {
      opened.push(value);
      return value;
    };
    const start = async (major: number, settings: Record<string, string>): Promise<Cluster> =>
      keep(await startCluster({ major, settings }));
    const servers = {
      source: await start(options.sourceMajor, {
        // The source frees the slot of a replicator that it does not hear about as soon as the replicator gives up.
        wal_sender_timeout: `${TIMEOUT_MS * 2}ms`,
        // The large transactions come while they are in progress.
        ...(options.sourceMajor >= 14 ? { logical_decoding_work_mem: "1MB" } : {}),
      }),
      // What was committed stays unflushed for a while: a crash takes back what the source must not have been told.
      target: await start(options.targetMajor, {
        wal_writer_delay: "2000ms",
        wal_writer_flush_after: "64MB",
      }),
    };
    const networks = {
      source: keep(await startProxy({ target: { port: servers.source.port } })),
      target: keep(await startProxy({ target: { port: servers.target.port } })),
    };
    for (const [side, sql] of [
      ["source", `${SOAK_SCHEMA};${soakRows(options.historyRows)}`],
      ["target", SOAK_SCHEMA],
    ] as const) {
      const client = await openSession(servers[side].url());
      await client.query(sql);
      await client.end();
    }
    const home = keep(
      await ReplicatorHome.create(
        `source: ${networks.source.url(servers.source.url())}\n` +
          `targets:\n  soak: ${networks.target.url(servers.target.url())}\n` +
          `timeout: ${TIMEOUT_MS}ms\ncapture: ${options.way.capture}\ngear: ${options.way.gear}\n` +
          `tables: { without_key: refresh }\napply: { conflict: stop, ${options.way.apply} }\n`,
      ),
    );
    networks.source.throttle(COPY_BYTES_PER_SECOND);
    const site: Site = {
      servers,
      networks,
      home,
      replicator: ReplicatorProcess.start(home),
      timeoutMs: TIMEOUT_MS,
    };
    keep({ [Symbol.asyncDispose]: () => site.replicator[Symbol.asyncDispose]() });
    return site;
  }

  async run(): Promise<void> {
    const { seed, sourceMajor, targetMajor, faults, writers, largeMegabytes, way } = this.#options;
    this.#note(
      `seed ${seed}, PostgreSQL ${sourceMajor} → ${targetMajor}, ${faults} faults, capture ${way.capture}, gear ${way.gear}, ${way.apply}`,
    );
    const { source, target } = this.#site.servers;
    const workload = new Workload({
      url: source.url(),
      random: this.#random.fork(),
      writers,
      largeMegabytes,
    });
    const reader = new SoakReader(target.url(), way.capture);
    workload.finished.catch(this.#break);
    reader.finished.catch(this.#break);
    const watch = setInterval(() => this.#watch(), 200);
    try {
      await this.#orBroken(this.#disturbCopy());
      workload.truncates = true;
      await this.#orBroken(this.#disturbStream());
      await this.#orBroken(this.#end(workload, reader));
    } catch (error) {
      throw this.#report(error);
    } finally {
      clearInterval(watch);
      await Promise.allSettled([workload.stop(), reader.stop(), ...this.#held.values()]);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await close(this.#opened);
  }

  async #disturbCopy(): Promise<void> {
    while (this.#struck < this.#options.copyFaults) {
      const begun = await until(() => this.#copy(), {
        what: "the first copy to go on",
        timeout: RECOVERY_MS,
      });
      if (begun === "copied") break;
      await sleep(this.#random.integer(0, 1_500));
      if ((await this.#copy()) === "copying") await this.#strike("copying");
    }
    this.#site.networks.source.throttle(Infinity);
    if (this.#struck === 0) throw new Error("the first copy was over before it could be disturbed");
    await this.#recovered();
  }

  async #disturbStream(): Promise<void> {
    while (this.#struck < this.#options.faults) {
      const overlaps = this.#random.chance(0.3);
      const fault = this.#strike("streaming");
      if (overlaps) fault.catch(this.#break);
      else await fault;
      await sleep(this.#random.integer(0, 1_500));
      if (!overlaps && this.#random.chance(0.4)) await this.#recovered();
    }
    await Promise.all(this.#held.values());
  }

  /** Chooses a fault and lets it happen once nothing else befalls its victim. */
  async #strike(during: string): Promise<void> {
    const number = ++this.#struck;
    const fault = this.#random.pick(FAULTS);
    const random = this.#random.fork();
    const before = this.#held.get(fault.victim);
    const striking = (async (): Promise<void> => {
      await before;
      this.#note(`${number} (${during}) ${fault.name}`);
      const what = await fault.strike(this.#site, random);
      this.#note(`${number} over${what === undefined ? "" : `: ${what}`}`);
    })();
    this.#held.set(fault.victim, striking);
    await striking;
  }

  /** Nobody does anything, and the target catches up with what the source has now. */
  async #recovered(): Promise<void> {
    await Promise.all(this.#held.values());
    const tick = await until(() => this.#tick("source"), {
      what: "the source to answer",
      timeout: RECOVERY_MS,
    });
    await until(async () => (await this.#tick("target")) >= tick, {
      what: `the target to reach tick ${tick}`,
      timeout: RECOVERY_MS,
      interval: 100,
    });
    this.#note(`caught up, tick ${tick}`);
  }

  async #end(workload: Workload, reader: SoakReader): Promise<void> {
    await workload.stop();
    await this.#recovered();
    await reader.stop();
    const { servers } = this.#site;
    await this.#site.replicator.stop();
    await this.#noSessionLeft();
    await expectEqualTables(servers.source.url(), servers.target.url());
    const slots = await this.#ask(
      "source",
      "select json_agg(json_build_array(slot_name, active)) from pg_replication_slots",
    );
    const wanted = this.#options.way.capture === "wal" ? '[["erserver_soak",false]]' : "null";
    if (JSON.stringify(slots) !== wanted) throw new Error(`slots that are left: ${JSON.stringify(slots)}`);
    const { committed, rolledBack, large } = workload;
    const { looks, serverLives, replays } = reader;
    this.#note(
      `equal. ${committed} transactions, ${large} large, ${rolledBack} rolled back; ${looks} looks at the target in ${serverLives} lives of its server, ${replays} replays`,
    );
    if (looks === 0) throw new Error("the reader saw nothing");
  }

  /**
   * Sessions end with their client, and nobody helps: the servers are asked while the networks stand. What a fault had hidden from a
   * server, it has told it before it was over.
   */
  async #noSessionLeft(): Promise<void> {
    const names = `select string_agg(application_name || ': ' || coalesce(state, backend_type), ', ') from pg_stat_activity where ${OUR_SESSIONS}`;
    for (const side of ["source", "target"] as const) {
      const nobody = async (): Promise<true> => {
        const left = await this.#ask(side, names);
        if (left !== null) throw new Error(left as string);
        return true;
      };
      await until(nobody, {
        what: `the ${side}'s sessions of the replicator to end with it`,
        timeout: SESSIONS_END_MS,
      });
    }
  }

  /** Undefined before it has begun, or when the target cannot say. */
  async #copy(): Promise<"copying" | "copied" | undefined> {
    const state = `select case when bool_or(state in ('init', 'data_sync')) then 'copying' else 'copied' end
      from erserver.table_state having count(*) > 0`;
    const answer = await this.#ask("target", state).catch(() => undefined);
    return answer === "copying" || answer === "copied" ? answer : undefined;
  }

  async #tick(side: "source" | "target"): Promise<bigint> {
    return BigInt((await this.#ask(side, "select n::text from tick")) as string);
  }

  async #ask(side: "source" | "target", sql: string): Promise<unknown> {
    let client: Client | undefined;
    try {
      client = await openSession(this.#site.servers[side].url());
      const { rows } = await client.query({ text: sql, rowMode: "array" });
      return rows[0]?.[0];
    } finally {
      await client?.end().catch(() => undefined);
    }
  }

  #watch(): void {
    try {
      this.#site.replicator.assertRunning();
    } catch (error) {
      this.#break(error);
    }
  }

  async #orBroken<T>(work: Promise<T>): Promise<T> {
    return Promise.race([work, this.#broken]);
  }

  #note(text: string): void {
    const seconds = ((performance.now() - this.#startedMs) / 1000).toFixed(1).padStart(7);
    const line = `${new Date().toISOString().slice(11, 23)} ${seconds} s  ${text}`;
    this.#log.push(line);
    this.#options.say(line);
  }

  #report(error: unknown): Error {
    const { seed, faults } = this.#options;
    const message = error instanceof Error ? error.message : String(error);
    return new Error(
      `${message}\n\nrun it again: ERSERVER_SOAK_SEED=${seed} ERSERVER_SOAK_FAULTS=${faults}\nfaults:\n${this.#log.join("\n")}\n\nthe replicator's last words:\n${this.#site.home.logTail()}`,
      { cause: error },
    );
  }
}

type Opened = (AsyncDisposable | Disposable)[];

async function close(opened: Opened): Promise<void> {
  for (const one of opened.toReversed()) {
    if (Symbol.asyncDispose in one) await one[Symbol.asyncDispose]();
    else one[Symbol.dispose]();
  }
}
