import { type Follower, waitUntil } from "./follower.ts";
import type { Pair } from "./servers.ts";

/** https://www.postgresql.org/docs/current/catalog-pg-subscription-rel.html */
const STATES = { copied: ["f", "s", "r"], ready: ["r"] };

/** PostgreSQL's own logical replication, in the fastest form that the major has. */
export class NativeFollower implements Follower {
  readonly #pair: Pair;
  readonly #sourcePort: number;
  #created = false;

  /** @param sourcePort where it finds the source. */
  constructor(pair: Pair, sourcePort: number) {
    this.#pair = pair;
    this.#sourcePort = sourcePort;
  }

  async start(): Promise<void> {
    const { source, target } = this.#pair;
    if (this.#created) {
      await target.session.query("ALTER SUBSCRIPTION bench ENABLE");
      return;
    }
    const streaming = target.cluster.major >= 16 ? ", streaming = parallel" : "";
    await source.session.query("CREATE PUBLICATION bench FOR ALL TABLES");
    await target.session.query(
      `CREATE SUBSCRIPTION bench CONNECTION 'host=127.0.0.1 port=${this.#sourcePort} user=${source.cluster.user} dbname=postgres'
       PUBLICATION bench WITH (binary = true${streaming})`,
    );
    this.#created = true;
  }

  async stop(): Promise<void> {
    const { source, target } = this.#pair;
    await target.session.query("ALTER SUBSCRIPTION bench DISABLE");
    await waitUntil(this, "the subscription to end", 50, async () => {
      const workers = await target.session.query("SELECT FROM pg_stat_subscription WHERE pid IS NOT NULL");
      const slots = await source.session.query("SELECT FROM pg_replication_slots WHERE active");
      return workers.rows.length + slots.rows.length === 0;
    });
  }

  async tables(state: "copied" | "ready"): Promise<number> {
    const { rows } = await this.#pair.target.session.query<{ count: number }>(
      "SELECT count(*)::int FROM pg_subscription_rel WHERE srsubstate::text = ANY ($1)",
      [STATES[state]],
    );
    return rows[0]?.count ?? 0;
  }

  /** Its workers are processes of the server: most of their memory is the shared buffers. */
  peakMemory(): undefined {
    return undefined;
  }

  /** The server starts a worker that failed again. */
  assertRunning(): void {}

  async [Symbol.asyncDispose](): Promise<void> {}
}
