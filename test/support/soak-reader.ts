/** Looks at the target all the time, and at every look asks whether the source was ever like this. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Client } from "pg";
import { parseLsn } from "../../src/change/lsn.ts";
import { openSession } from "./clusters.ts";
import { isOutage, TOTAL } from "./soak-workload.ts";

const INTERVAL_MS = 50;

/** One snapshot of the target. Counts as PostgreSQL prints them. */
interface View {
  readonly server_start: string;
  readonly lsn: string;
  readonly transactions: string;
  readonly conflicts: string;
  readonly replays: string;
  readonly copied: boolean;
  readonly tick: string;
  readonly bulk_missing: string;
  readonly total: string;
  readonly ledger_rows: string;
  readonly newest_tick: string;
  readonly newest_checksum: string;
  readonly checksum: string;
  readonly writers: Readonly<Record<string, readonly [newest: number, rows: number]>> | null;
  readonly events: string;
}

/** Copies of one sync may show the source at different moments, until another sync has passed. */
const viewOf = (capture: "wal" | "trigger"): string => `
  select pg_postmaster_start_time()::text as server_start,
    p.lsn::text, p.transactions::text, p.conflicts::text, p.replays::text,
    not exists (select from erserver.table_state where state in ('init', 'data_sync') or copy_lsn ${capture === "wal" ? ">" : ">="} p.lsn) as copied,
    t.n::text as tick, (t.bulk_rows - (select count(*) from bulk))::text as bulk_missing,
    ((select sum(balance) from account) + (select sum(balance) from vault))::text as total,
    (select count(*) from ledger)::text as ledger_rows, (select count(*) from event)::text as events,
    newest.tick::text as newest_tick, newest.checksum::text as newest_checksum, soak_checksum()::text as checksum,
    (select json_object_agg(writer, json_build_array(newest, rows)) from (select writer, max(n) as newest, count(*) as rows from ledger group by 1) w) as writers
  from erserver.progress p
  left join tick t on true
  left join lateral (select tick, checksum from ledger order by tick desc limit 1) newest on true`;

export class SoakReader {
  readonly #url: string;
  readonly #capture: "wal" | "trigger";
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;
  #last: View | undefined;
  /** Source transactions before the first that was applied: constant, as long as each is counted once. */
  #uncounted: bigint | undefined;
  /** Looks at a state that had to be whole. */
  looks = 0;
  /** Looks that found the target's server started anew. */
  serverLives = 0;

  constructor(url: string, capture: "wal" | "trigger") {
    this.#url = url;
    this.#capture = capture;
    this.#running = this.#run();
    this.#running.catch(() => undefined);
  }

  /** Rejects with the first rule that was found broken. */
  get finished(): Promise<void> {
    return this.#running;
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
  }

  get replays(): number {
    return Number(this.#last?.replays ?? 0);
  }

  async #run(): Promise<void> {
    let client: Client | undefined;
    try {
      while (!this.#stopping.signal.aborted) {
        try {
          client ??= await openSession(this.#url);
          const seen = await look(client, this.#capture);
          if (seen !== undefined) this.#judge(seen);
        } catch (error) {
          if (!isOutage(error)) throw error;
          await client?.end().catch(() => undefined);
          client = undefined;
        }
        await sleep(INTERVAL_MS);
      }
    } finally {
      await client?.end().catch(() => undefined);
    }
  }

  #judge(view: View): void {
    const before = this.#last;
    // A target that was killed may have lost its newest commits, which come again.
    const sameLife = before?.server_start === view.server_start;
    if (!sameLife) this.serverLives++;
    const check = (holds: boolean, rule: string): void => {
      if (!holds)
        throw new Error(
          `the target breaks a rule: ${rule}\n  now ${JSON.stringify(view)}\n  before ${JSON.stringify(before)}`,
        );
    };
    check(view.conflicts === "0", "no change meets a row that it does not expect");
    if (sameLife && before !== undefined)
      check(parseLsn(view.lsn) >= parseLsn(before.lsn), "the position never goes back");
    this.#last = view;
    if (!view.copied) return;
    this.looks++;
    check(view.total === String(TOTAL), "the sum of all balances is constant");
    check(view.tick === view.ledger_rows, "as many ledger rows as ticks");
    check(view.tick === view.events, "as many events as ticks");
    check(view.bulk_missing === "0", "a large transaction is there as a whole");
    check((view.newest_tick ?? "0") === view.tick, "the newest ledger row is that of the tick");
    check(
      view.newest_checksum === null || view.newest_checksum === view.checksum,
      "the tables are as the source had them at this tick",
    );
    for (const [writer, [newest, rows]] of Object.entries(view.writers ?? {}))
      check(newest === rows, `writer ${writer} has no gap`);
    const uncounted = BigInt(view.tick) - BigInt(view.transactions);
    this.#uncounted ??= uncounted;
    // A sync is one transaction, whatever it brings.
    if (this.#capture === "wal") check(uncounted === this.#uncounted, "every transaction is counted once");
    if (!sameLife || before === undefined || !before.copied) return;
    check(BigInt(view.tick) >= BigInt(before.tick), "ticks never go back");
    for (const [writer, [newest]] of Object.entries(before.writers ?? {}))
      check((view.writers?.[writer]?.[0] ?? 0) >= newest, `writer ${writer} never goes back`);
  }
}

/** Undefined before there is anything to see. */
async function look(client: Client, capture: "wal" | "trigger"): Promise<View | undefined> {
  const exists = await client.query("select where to_regclass('erserver.progress') is not null");
  if (exists.rows.length === 0) return undefined;
  await client.query("begin isolation level repeatable read read only");
  try {
    // Before the snapshot is taken: a TRUNCATE that commits after it empties the table for it all the same.
    await client.query("lock table scratch, account, vault, item, journal in access share mode");
    const { rows } = await client.query<View>(viewOf(capture));
    return rows[0];
  } finally {
    await client.query("commit").catch(() => undefined);
  }
}
