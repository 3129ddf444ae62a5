import { setTimeout as sleep } from "node:timers/promises";
import { type Change, TruncateChange } from "../../change/change.ts";
import type { Lsn } from "../../change/lsn.ts";
import type { Relation } from "../../change/relation.ts";
import type { ChangeSink } from "../../change/sink.ts";
import { ErserverError } from "../../errors/erserver-error.ts";
import { tableLabel } from "../../postgres/catalog.ts";
import { findRewritten } from "../../postgres/rewritten.ts";
import { quoteLiteral } from "../../quote/literal.ts";
import { onAbort } from "../../runtime/abort.ts";
import { deferred } from "../../wire/deferred.ts";
import { framePayloads } from "../../wire/frame-runs.ts";
import type { WireConnection } from "../../wire/connection.ts";
import { changedTablesQuery, type FollowedTable, presentQuery, removedQuery } from "./changes-query.ts";
import { RowImages } from "./row-images.ts";
import { formatTargetSnapshot, parseSnapshot, type TargetSnapshot, type XidSnapshot } from "./snapshot.ts";

/** What a target has of a table: all that this snapshot of the source sees; undefined when all rows are to come, in place of its own. */
export interface TableBase {
  readonly table: FollowedTable;
  readonly base: XidSnapshot | undefined;
}

/** What of a sink gets syncs. */
export type SyncSink = Pick<ChangeSink, "begin" | "change" | "commit" | "idle" | "full" | "whenRoom">;

interface RowsQuery {
  readonly sql: string;
  readonly toChange: (bytes: Buffer, start: number, end: number) => Change;
}

type ChangedTable = TableBase & { readonly truncated: boolean };

export interface TriggerCaptureOptions {
  /** An ordinary session of the source; it belongs to the capture from here on. */
  readonly connection: WireConnection;
  readonly tables: readonly TableBase[];
  /** What the target has of tables that are not among them, and keeps; undefined when there are none. */
  readonly rest: TargetSnapshot | undefined;
  /** Number of the last sync that the target has. */
  readonly startLsn: Lsn;
  readonly sink: SyncSink;
  readonly binary: boolean;
  /** The first sync is of this exported snapshot. */
  readonly toSnapshot: string | undefined;
  /** Throws when a table is not what the target was planned for; called with those that have changes, before they are delivered whole. */
  readonly requireUnchanged: (oids: readonly number[]) => Promise<void>;
  /** The target has all that a snapshot sees, durably: the source may forget it. */
  readonly onDurable: (durable: DurableSync) => void;
  /** Resolves when the source has forgotten what it may. */
  readonly settle: () => Promise<void>;
}

export interface DurableSync {
  /** Number of the last sync in it. */
  readonly lsn: Lsn;
  readonly snapshot: XidSnapshot;
  /** Something has come since the last one. */
  readonly changes: boolean;
}

/** In place of a snapshot's name. */
export const HERE = "";

/** How often an idle source is asked, in milliseconds, and how long it is left alone behind a sync. */
const POLL_MS = 100;
const BUSY_PAUSE_MS = 20;

/** Looks that found nothing may take this share of the time: with thousands of tables they take long when others write to the source. */
const IDLE_SHARE = 1 / 20;
const LONGEST_PAUSE_MS = 5_000;

/** Read-only, all of one snapshot. Changed rows are looked up by their keys: a plan that reads the whole table would cost the same for one row. */
const beginAt = (
  snapshotName: string | undefined,
): string => `begin isolation level repeatable read read only;
  ${snapshotName === undefined ? "" : `set transaction snapshot ${quoteLiteral(snapshotName)};`} set local enable_hashjoin = off; set local enable_mergejoin = off; set local enable_seqscan = off; set local work_mem = '64MB';
  select pg_catalog.txid_current_snapshot()::text, (extract(epoch from pg_catalog.clock_timestamp()) * 1000000)::bigint`;

/**
 * Reads what triggers have recorded: each sync is one transaction for the sink, from one committed state of the source to a later one.
 * Syncs are numbered; the number stands where the WAL has positions: sync n begins at n and ends at n + 1.
 */
export class TriggerCapture implements AsyncDisposable {
  readonly #options: TriggerCaptureOptions;
  readonly #failed: Promise<never>;
  #rejectFailed!: (error: unknown) => void;
  readonly #images: RowImages;
  readonly #ending = new AbortController();
  readonly #done: Promise<void>;
  #tables: readonly TableBase[];
  #next: Lsn;
  /** What was seen at the end of each sync that is not known to be durable, by its number. */
  readonly #snapshots = new Map<Lsn, { readonly shown: TargetSnapshot; readonly changes: boolean }>();
  #last: XidSnapshot | undefined;
  /** Whether the target stands still: nothing is read for it meanwhile. */
  standing = false;
  /** Asked for by `holdAt`, and where it is, once the sync that goes there is delivered. */
  #hold: { readonly snapshotName: string; lsn?: Lsn } | undefined;

  constructor(options: TriggerCaptureOptions) {
    this.#options = options;
    this.#tables = options.tables;
    this.#next = options.startLsn;
    if (options.toSnapshot !== undefined) this.#hold = { snapshotName: options.toSnapshot };
    this.#images = new RowImages(options.binary ? "binary" : "text");
    this.#failed = new Promise<never>((_resolve, reject) => {
      this.#rejectFailed = reject;
    });
    this.#failed.catch(() => {});
    void options.connection.closed.then((error) => this.#rejectFailed(error));
    this.#done = this.#run().catch((error: unknown) => this.#rejectFailed(error));
  }

  /** Rejects when no more changes come, for whatever reason. */
  get failed(): Promise<never> {
    return this.#failed;
  }

  readonly gear = "stream";

  /** What the target shows when it has everything before this number; undefined for one that no sync ends at. */
  snapshotAt(lsn: Lsn): string | undefined {
    const shown = this.#snapshots.get(lsn)?.shown;
    return shown === undefined ? undefined : formatTargetSnapshot(shown);
  }

  acknowledge(_appliedLsn: Lsn, durableLsn: Lsn): void {
    let durable: DurableSync | undefined;
    for (const [lsn, { shown, changes }] of this.#snapshots) {
      if (lsn > durableLsn) break;
      durable = { lsn, snapshot: shown.base, changes: changes || durable?.changes === true };
      this.#snapshots.delete(lsn);
    }
    if (durable !== undefined) this.#options.onDurable(durable);
  }

  async settle(appliedLsn: Lsn, durableLsn: Lsn): Promise<void> {
    this.acknowledge(appliedLsn, durableLsn);
    await this.#options.settle();
  }

  /** Goes on to where the source is by an exported snapshot, or stays `HERE`, and goes no further before it is called with undefined. */
  holdAt(snapshotName: string | undefined): Lsn | undefined {
    if (snapshotName !== this.#hold?.snapshotName)
      this.#hold = snapshotName === undefined ? undefined : { snapshotName };
    return this.#hold?.lsn;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort();
    // In the middle of a sync nothing of it has been committed on the target.
    this.#options.connection.destroy();
    await this.#done;
  }

  async #run(): Promise<void> {
    const { signal } = this.#ending;
    while (!signal.aborted) {
      if (this.#hold?.snapshotName === HERE) this.#hold.lsn = this.#next;
      const mayGoOn = !this.standing && this.#hold?.lsn === undefined;
      const startMs = performance.now();
      const busy = mayGoOn && (await this.#sync());
      const idleMs = Math.min((performance.now() - startMs) / IDLE_SHARE, LONGEST_PAUSE_MS);
      await sleep(busy ? BUSY_PAUSE_MS : Math.max(POLL_MS, idleMs), undefined, { signal }).catch(() => {});
    }
  }

  /** False when there was nothing. */
  async #sync(): Promise<boolean> {
    const { connection, sink } = this.#options;
    const hold = this.#hold;
    const results = await connection.query(beginAt(hold?.snapshotName));
    const [text, now] = results.at(-1)?.rows[0] ?? [];
    const snapshot = parseSnapshot(text ?? "");
    const unchanged = snapshot.text === this.#last?.text;
    const changed = unchanged ? [] : await this.#changedTables();
    if (changed.length > 0) {
      const commitLsn = this.#next;
      const endLsn = (commitLsn + 1n) as Lsn;
      const transaction = { xid: 0, commitLsn, endLsn, commitTime: Number(now) };
      sink.begin(transaction);
      await this.#deliver(changed);
      await this.#options.requireUnchanged(changed.map(({ table }) => table.relation.id));
      this.#passed(endLsn, snapshot, true);
      sink.commit(transaction);
    } else if (!unchanged) this.#passed((this.#next + 1n) as Lsn, snapshot, false);
    // Also behind changes: somebody may wait for the end of the first sync.
    sink.idle(this.#next);
    if (hold !== undefined) hold.lsn = this.#next;
    await connection.query("commit");
    return changed.length > 0;
  }

  #passed(lsn: Lsn, snapshot: XidSnapshot, changes: boolean): void {
    this.#next = lsn;
    this.#last = snapshot;
    this.#tables = this.#tables.map(({ table }) => ({ table, base: snapshot }));
    this.#snapshots.set(lsn, { shown: this.#shownAt(snapshot), changes });
  }

  #shownAt(snapshot: XidSnapshot): TargetSnapshot {
    const { rest } = this.#options;
    if (rest === undefined) return { base: snapshot, ahead: new Map() };
    const read = this.#tables.map(({ table }) => [table.id, snapshot] as const);
    return { base: rest.base, ahead: new Map([...rest.ahead, ...read]) };
  }

  async #changedTables(): Promise<ChangedTable[]> {
    const query = changedTablesQuery(this.#tables);
    const [result] = await this.#options.connection.query(query);
    return this.#tables.flatMap((one, index) => {
      const [logged, truncated] = result?.rows[index] ?? [];
      return logged === "t" || truncated === "t" ? [{ ...one, truncated: truncated === "t" }] : [];
    });
  }

  /** All that goes comes before all that comes: unique values may have moved from one row to another. */
  async #deliver(changed: readonly ChangedTable[]): Promise<void> {
    const { sink } = this.#options;
    const emptied = changed.filter(({ truncated }) => truncated);
    const relationsOf = (tables: readonly TableBase[]): Relation[] =>
      tables.map(({ table: { relation } }) => relation);
    const truncated = relationsOf(emptied.filter((one) => !isReplaced(one)));
    if (truncated.length > 0) sink.change(new TruncateChange(truncated, false, false, 0));
    for (const relation of relationsOf(emptied.filter(isReplaced)))
      sink.change(new TruncateChange([relation], false, false, 0, true));
    await this.#read([
      ...changed.flatMap((one) =>
        one.truncated || one.base === undefined ? [] : this.#removed(one, one.base),
      ),
      ...changed.map((one) => this.#present(one)),
    ]);
    const oid = await findRewritten(
      this.#options.connection,
      changed.map(({ table }) => table.relation.id),
    );
    const found = changed.find(({ table }) => table.relation.id === oid);
    if (found !== undefined) throw rewritten(found.table.relation);
  }

  #removed({ table }: TableBase, base: XidSnapshot): RowsQuery {
    const { relation, key } = table;
    const indexes = key.map(({ name }) => relation.columns.findIndex((column) => column.name === name));
    return {
      sql: removedQuery(table, base),
      toChange: (bytes, start, end) => this.#images.removed(relation, indexes, bytes, start, end),
    };
  }

  #present({ table, base, truncated }: ChangedTable): RowsQuery {
    return {
      sql: presentQuery(table, base, truncated),
      toChange: (bytes, start, end) => this.#images.present(table.relation, bytes, start, end),
    };
  }

  /** All in one flight: a far source is waited for once. */
  async #read(queries: readonly RowsQuery[]): Promise<void> {
    const { connection, sink, binary } = this.#options;
    const rows = connection.select(
      queries.map(({ sql }) => sql),
      binary ? "binary" : "text",
    );
    for await (const run of rows) {
      const { toChange } = queries[rows.statement] as RowsQuery;
      framePayloads(run, (bytes, start, end) => sink.change(toChange(bytes, start, end)));
      if (sink.full) await this.#whenRoom();
    }
  }

  /** Whoever has ended takes nothing any more. */
  async #whenRoom(): Promise<void> {
    const { signal } = this.#ending;
    const given = deferred<void>();
    using _ended = onAbort(signal, () => given.resolve());
    void this.#options.sink.whenRoom().then(() => given.resolve());
    await given.promise;
    signal.throwIfAborted();
  }
}

/** All its rows come, and nobody has truncated it. */
function isReplaced({ table: { key }, base }: TableBase): boolean {
  return base === undefined || key.length === 0;
}

/** TRUNCATE and rewriting forms of ALTER TABLE are not MVCC-safe: a snapshot from before sees an empty table. */
function rewritten({ schema, name }: { schema: string; name: string }): ErserverError {
  const label = tableLabel(schema, name);
  return new ErserverError(
    "ERS-509",
    `table ${label} was truncated or rewritten while its changes were read`,
    {
      subject: label,
      remedy: "Nothing to do: the pipeline is opened anew by itself.",
    },
  );
}
