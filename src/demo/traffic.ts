import { setTimeout as sleep } from "node:timers/promises";
import type { Client } from "pg";
import { connect } from "./servers.ts";

const CLERKS = 2;
/** Between two transactions of a clerk: a busy shop, not a benchmark. */
const PAUSE_MS = 8;

/** What the n-th transaction does. Each is one message, so that a clerk never stands in the middle of one. */
function transaction(n: number): string {
  const customer = 1 + ((n * 7) % 120);
  switch (n % 8) {
    case 0:
      return "update inventory set stock = stock + 24 where stock < 12";
    case 1:
      return `insert into customer (lastname, firstname) values ('Walk-in ${n}', ${n % 3 === 0 ? "null" : "'O''Hara'"})`;
    case 2:
      return `insert into favorite_book (cust_id, isbn, rating) select ${customer}, isbn, ${1 + (n % 5)} from inventory
        order by isbn offset ${n % 48} limit 1 on conflict (cust_id, isbn) do update set rating = excluded.rating`;
    case 3:
      return `update inventory set retail = retail + '0.10'::money where isbn = (select isbn from inventory order by isbn offset ${n % 48} limit 1)`;
    case 4:
      return `begin; insert into invoice (cust_id, total) values (${customer}, '99.99'); delete from favorite_book where cust_id = ${customer}; rollback`;
    default:
      return `begin; ${sale(customer, n)}; savepoint gift; update customer set firstname = 'a mistake' where cust_id = ${customer}; rollback to gift; commit`;
  }
}

/** An invoice and the shipment of a copy of which there are enough, in two tables; a trigger writes to a third. */
function sale(customer: number, n: number): string {
  return `with bought as (select isbn, retail from inventory where stock > 2 order by isbn offset ${n % 20} limit 1),
      billed as (insert into invoice (cust_id, employee_id, total) select ${customer}, ${101 + (n % 6)}, retail from bought returning invoice_id)
    insert into shipped_orders (invoice_id, cust_id, isbn) select invoice_id, ${customer}, isbn from billed, bought`;
}

/** Clerks who sell books on the source until they are told to stop. */
export class Traffic implements AsyncDisposable {
  readonly #url: string;
  readonly #stop = new AbortController();
  #clerks: Promise<void>[] = [];
  #committed = 0;
  #next = 0;
  #failure: unknown;

  constructor(url: string) {
    this.#url = url;
  }

  /** Transactions that changed a row; those that were rolled back do not count. */
  get committed(): number {
    if (this.#failure !== undefined) throw this.#failure;
    return this.#committed;
  }

  /** Runs and counts one transaction. */
  async commit(session: Client, sql: string): Promise<void> {
    const results = [await session.query(sql)].flat();
    const kept = results.some(({ command, rowCount }) => command !== "SELECT" && (rowCount ?? 0) > 0);
    if (kept && results.at(-1)?.command !== "ROLLBACK") this.#committed++;
  }

  /** Sells a book and returns its invoice: a mark that a target has reached this moment. */
  async sellOne(session: Client): Promise<number> {
    const { rows } = await session.query<{ invoice_id: number }>(
      "insert into invoice (cust_id, total, note) values (10, '12.50', 'pick-up') returning invoice_id",
    );
    this.#committed++;
    return rows[0]?.invoice_id ?? 0;
  }

  start(): void {
    this.#clerks = Array.from({ length: CLERKS }, () =>
      this.#work().catch((error: unknown) => {
        if (!this.#stop.signal.aborted) this.#failure = error;
      }),
    );
  }

  /** Lets every clerk finish the transaction in hand. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#clerks);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #work(): Promise<void> {
    const clerk = await connect(this.#url);
    try {
      while (!this.#stop.signal.aborted) {
        await this.commit(clerk, transaction(this.#next++));
        await sleep(PAUSE_MS, undefined, { signal: this.#stop.signal }).catch(() => {});
      }
    } finally {
      await clerk.end();
    }
  }
}

/** Finds an invoice once it has arrived. */
export const invoiceQuery = (id: number): string => `select from invoice where invoice_id = ${id}`;
