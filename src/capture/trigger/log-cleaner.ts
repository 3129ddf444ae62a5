import type { ControlSession } from "../../postgres/connect.ts";

/** Rows that one statement removes: a short one, which holds nobody up. */
const BITE_ROWS = 10_000;

/** Bites in a row, of one log: the sync has precedence. */
const MOST_BITES = 20;

interface Bounds {
  readonly id: string;
  /** Null for a table without a key. */
  readonly log: string | null;
  readonly xmin: string;
  readonly xmax: string;
  readonly in_progress: string;
}

/**
 * Removes from the logs what every target that wants the table has: what all their snapshots see. Of a table that no
 * target wants all is removed.
 */
export class LogCleaner {
  readonly #session: ControlSession;
  /** Up to which number all was removed from a log, so that its garbage is not passed again. */
  readonly #cleanBelow = new Map<number, bigint>();

  constructor(session: ControlSession) {
    this.#session = session;
  }

  /** One round over the logs of these tables, of so many bites each at most; returns how many records were removed. */
  async clean(tables: readonly number[], mostBites = MOST_BITES): Promise<number> {
    let removed = 0;
    const bounds = await this.#session.query<Bounds>(
      `select t.id::text, coalesce(pg_catalog.min(pg_catalog.txid_snapshot_xmin(c.snapshot)), now.xmin)::text as xmin,
         coalesce(pg_catalog.min(pg_catalog.txid_snapshot_xmax(c.snapshot)), now.xmin)::text as xmax,
         pg_catalog.to_regclass('erserver.log_' || t.id)::text as log,
         coalesce((select pg_catalog.string_agg(x::text, ',') from erserver.consumer o, pg_catalog.txid_snapshot_xip(o.snapshot) as x where t.id = any (o.tables)), '') as in_progress
       from pg_catalog.unnest($1::int[]) as t(id) left join erserver.consumer c on t.id = any (c.tables)
         cross join (select pg_catalog.txid_snapshot_xmin(pg_catalog.txid_current_snapshot()) as xmin) as now
       group by t.id, now.xmin`,
      [tables],
    );
    for (const { id, log, xmin, xmax, in_progress: inProgress } of bounds) {
      const from = this.#cleanBelow.get(Number(id)) ?? 0n;
      if (BigInt(xmax) <= from) continue;
      const kept = inProgress === "" ? "" : ` and xid not in (${inProgress})`;
      const condition = `xid >= ${from} and xid < ${xmax}${kept}`;
      const places = [
        ...(log === null ? [] : [{ table: log, where: condition }]),
        { table: "erserver.replacement", where: `captured_table = ${id} and ${condition}` },
      ];
      let whole = true;
      for (const { table, where } of places) {
        const { rows, more } = await this.#remove(table, where, mostBites);
        removed += rows;
        whole &&= !more;
      }
      if (whole) this.#cleanBelow.set(Number(id), BigInt(xmin));
    }
    return removed;
  }

  async #remove(
    table: string,
    condition: string,
    mostBites: number,
  ): Promise<{ rows: number; more: boolean }> {
    let removed = 0;
    for (let bite = 0; bite < mostBites; bite++) {
      const [row] = await this.#session.query(
        `with gone as (delete from ${table} where ctid = any (array(select ctid from ${table} where ${condition} limit ${BITE_ROWS})) returning 1)
         select count(*)::text as rows from gone`,
      );
      const rows = Number(row?.["rows"]);
      removed += rows;
      if (rows < BITE_ROWS) return { rows: removed, more: false };
    }
    return { rows: removed, more: true };
  }
}
