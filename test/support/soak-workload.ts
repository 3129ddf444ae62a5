/**
 * Traffic for the soak: several clients with random transactions over all tables, and rules that hold after each of them.
 *
 * - The balances of `account` and `vault` have a constant sum.
 * - `ledger` has one row a transaction: the writer's own number `n`, and the transaction's place in the commit order of all, `tick`.
 *   Every transaction updates the one row of `tick` last and holds its lock until it has committed: ticks are the commit order.
 * - Each ledger row holds a checksum of the tables as they are after that transaction. Whoever finds it true elsewhere sees a
 *   state that the source had, at the place that it says.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Client } from "pg";
import { openSession } from "./clusters.ts";
import type { SeededRandom } from "./soak-random.ts";

const ACCOUNTS = 40;
const OPENING_BALANCE = 1_000;
const ITEMS = 40;

/** Sum of all balances, for ever. */
export const TOTAL = 2 * ACCOUNTS * OPENING_BALANCE;

/** For both sides. `event` has no key: a row that is written twice stays unnoticed, except by whoever counts. */
export const SOAK_SCHEMA = `
  create table account (id int primary key, balance bigint not null, note text);
  create table vault (id int primary key, balance bigint not null);
  create table item (key text primary key, version int not null, body text not null);
  create table journal (writer int, entry int);
  alter table journal replica identity full;
  create table event (writer int, n bigint);
  create table scratch (id bigint primary key, note text);
  create table bulk (batch bigint, n int, body text, primary key (batch, n));
  create table history (id int primary key, body text);
  create table ledger (writer int, n bigint, tick bigint not null unique, checksum numeric, primary key (writer, n));
  create table tick (id int primary key, n bigint not null, bulk_rows bigint not null);
  create function content_hash(text) returns numeric language sql immutable as
    $$ select ('x' || substr(md5($1), 1, 15))::bit(60)::bigint::numeric $$;
  create function soak_checksum() returns numeric language sql stable as $$
    select coalesce(sum(content_hash(line)), 0) from (
      select 'account' || a::text as line from public.account a
      union all select 'vault' || v::text from public.vault v
      union all select 'item' || i::text from public.item i
      union all select 'journal' || j::text from public.journal j
      union all select 'scratch' || s::text from public.scratch s) lines $$`;

/** For the source. `historyRows` of 1 kB make the first copy last. */
export function soakRows(historyRows: number): string {
  return `
    insert into account select i, ${OPENING_BALANCE}, null from generate_series(1, ${ACCOUNTS}) i;
    insert into vault select i, ${OPENING_BALANCE} from generate_series(1, ${ACCOUNTS}) i;
    insert into item select 'item ' || i, 0, 'nothing' from generate_series(1, ${ITEMS}) i;
    insert into history select i, repeat(md5(i::text), 32) from generate_series(1, ${historyRows}) i;
    insert into tick values (1, 0, 0)`;
}

export interface WorkloadOptions {
  readonly url: string;
  readonly random: SeededRandom;
  readonly writers: number;
  /** Megabytes of the now and then large transaction. */
  readonly largeMegabytes: { readonly from: number; readonly to: number };
}

type Step = (client: Client, random: SeededRandom, writer: number) => Promise<unknown>;

/** The writers. They meet a source that is down by waiting, and never believe what they have not read back. */
export class Workload {
  readonly #options: WorkloadOptions;
  readonly #stopping = new AbortController();
  readonly #writers: Promise<void>[];
  /** Transactions that were acknowledged to a writer. */
  committed = 0;
  rolledBack = 0;
  large = 0;
  /**
   * Not during the first copy: a snapshot sees a table that was truncated after it empty, all the same.
   * https://www.postgresql.org/docs/current/mvcc-caveats.html
   */
  truncates = false;

  constructor(options: WorkloadOptions) {
    this.#options = options;
    this.#writers = Array.from({ length: options.writers }, (_, index) =>
      this.#write(index + 1, options.random.fork()),
    );
    for (const writer of this.#writers) writer.catch(() => undefined);
  }

  /** Rejects when a writer meets what only a mistake in the workload explains. */
  get finished(): Promise<unknown> {
    return Promise.all(this.#writers);
  }

  /** Resolves when every writer has ended the transaction that it was in. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.finished;
  }

  async #write(writer: number, random: SeededRandom): Promise<void> {
    let client: Client | undefined;
    try {
      while (!this.#stopping.signal.aborted) {
        try {
          client ??= await openSession(this.#options.url);
          await this.#transaction(client, writer, random);
          await sleep(random.integer(0, 25));
        } catch (error) {
          this.rolledBack++;
          if (isTransient(error)) await client?.query("rollback").catch(() => undefined);
          else if (isOutage(error)) {
            await client?.end().catch(() => undefined);
            client = undefined;
            await sleep(50);
          } else throw error;
        }
      }
    } finally {
      await client?.end().catch(() => undefined);
    }
  }

  async #transaction(client: Client, writer: number, random: SeededRandom): Promise<void> {
    const truncates = this.truncates && random.chance(0.01);
    const large = !truncates && random.chance(0.002);
    await client.query("begin");
    // First, since a TRUNCATE that came to it later would wait for `tick` while others with `tick` wait for it.
    await client.query(`lock table scratch in ${truncates ? "access exclusive" : "row exclusive"} mode`);
    if (truncates) await client.query("truncate scratch");
    let bulkRows = 0;
    if (large) {
      this.large++;
      bulkRows = await this.#writeBulk(client, random);
    }
    for (let steps = random.integer(1, 4); steps > 0; steps--) {
      const rollsBack = random.chance(0.15);
      if (rollsBack) await client.query("savepoint attempt");
      await random.pick(STEPS)(client, random, writer);
      if (rollsBack) await client.query("rollback to savepoint attempt");
    }
    if (random.chance(0.05)) {
      await client.query("rollback");
      this.rolledBack++;
      return;
    }
    await client.query("insert into event select $1::int, max(n) from ledger where writer = $1::int", [
      writer,
    ]);
    const { rows } = await client.query<{ n: string }>(
      "update tick set n = n + 1, bulk_rows = bulk_rows + $1 where id = 1 returning n",
      [bulkRows],
    );
    // A statement of its own: its snapshot sees all that committed before the lock was ours.
    await client.query(
      "insert into ledger select $1::int, coalesce(max(n), 0) + 1, $2::bigint, soak_checksum() from ledger where writer = $1::int",
      [writer, rows[0]?.n],
    );
    await client.query("commit");
    this.committed++;
  }

  /** Fills a batch, or removes the oldest once there are some. Returns the rows that `bulk` has more. */
  async #writeBulk(client: Client, random: SeededRandom): Promise<number> {
    const { from, to } = this.#options.largeMegabytes;
    const { rows } = await client.query<{ batch: string }>("select distinct batch from bulk order by batch");
    const oldest = rows[0]?.batch;
    if (oldest !== undefined && rows.length > 2) {
      const { rowCount } = await client.query("delete from bulk where batch = $1", [oldest]);
      return -(rowCount ?? 0);
    }
    const count = random.integer(from, to) * 1000;
    await client.query(
      `insert into bulk select nextval, n, repeat(md5(n::text), 32)
       from (select coalesce(max(batch), 0) + 1 as nextval from bulk) next, generate_series(1, $1::int) n`,
      [count],
    );
    return count;
  }
}

/** The row that we waited for was deleted, and its successor is younger than our snapshot. */
const madeAgain = (): Error =>
  Object.assign(new Error("an account was deleted and made again"), { code: "40001" });

const account = (random: SeededRandom): number => random.integer(1, ACCOUNTS);

/** Each keeps the rules by itself. Rows are taken in the order of their keys, so that deadlocks are rare. */
const STEPS: readonly Step[] = [
  // Between two accounts.
  async (client, random) => {
    const from = account(random);
    const to = (from % ACCOUNTS) + 1;
    const { rowCount } = await client.query(
      "update account set balance = balance + case id when $1::int then -$3::int else $3::int end where id in ($1::int, $2::int)",
      [from, to, random.integer(1, 100)],
    );
    if (rowCount !== 2) throw madeAgain();
  },
  // From one table to the other.
  async (client, random) => {
    const [id, amount] = [account(random), random.integer(-100, 100)];
    const { rowCount } = await client.query("update account set balance = balance - $2 where id = $1", [
      id,
      amount,
    ]);
    if (rowCount !== 1) throw madeAgain();
    await client.query("update vault set balance = balance + $2 where id = $1", [id, amount]);
  },
  // Deleted and made again, with another note.
  async (client, random, writer) => {
    const id = account(random);
    const { rows } = await client.query("delete from account where id = $1 returning balance", [id]);
    const note = `by ${writer}: ${random.integer(0, 1e9)}`;
    if (rows[0] !== undefined)
      await client.query("insert into account values ($1, $2, $3)", [id, rows[0].balance, note]);
  },
  // A key changes, and later back again.
  (client, random) =>
    client.query(
      `update item set key = case when key like '% moved' then left(key, -6) else key || ' moved' end, version = version + 1
       where key like $1`,
      [`item ${random.integer(1, ITEMS)}%`],
    ),
  // Large values, which go out of line when they change and are not sent when they do not.
  (client, random) =>
    client.query(
      `update item set body = (select string_agg(md5($2::text || i), '') from generate_series(1, $3::int) i) where key like $1`,
      [`item ${random.integer(1, ITEMS)}%`, random.integer(0, 1e9), random.pick([1, 100, 300])],
    ),
  (client, random) =>
    client.query("update item set version = version + 1 where key like $1", [
      `item ${random.integer(1, ITEMS)}%`,
    ]),
  // Equal rows without a key, and only one of them goes.
  (client, random, writer) =>
    client.query("insert into journal select $1, $2 from generate_series(1, $3::int)", [
      writer,
      random.integer(1, 5),
      random.integer(1, 3),
    ]),
  (client, random, writer) =>
    client.query(
      `delete from journal where ctid = any (array(select ctid from journal where writer = $1 limit $2::int))`,
      [writer, random.integer(1, 4)],
    ),
  (client, random, writer) =>
    client.query(
      "insert into scratch select coalesce(max(id), $1::int) + 8, $2 from scratch where id % 8 = $1::int",
      [writer % 8, `note ${random.integer(0, 1e9)}`],
    ),
];

/** Serialization failures, deadlocks, and two writers that made the same row. */
function isTransient(error: unknown): boolean {
  const { code = "" } = error as { code?: string };
  return ["40001", "40P01", "23505"].includes(code);
}

/** The source is down, starting, or was just killed. */
export function isOutage(error: unknown): boolean {
  const { code, message } = error as { code?: string; message: string };
  return code === undefined
    ? /terminated|closed|not queryable|ended/i.test(message)
    : /^(?:57P|08|E[A-Z]+$)/.test(code);
}
