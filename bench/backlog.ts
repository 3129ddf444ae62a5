import { waitUntil } from "./follower.ts";
import { pgbench } from "./pgbench.ts";
import { type Scenario, compare, establish, followerOf, memory } from "./scenario.ts";
import { hasMark, onBoth, type Pair, writeMark } from "./servers.ts";

type Size = (full: number) => number;

interface Backlog {
  readonly name: string;
  readonly about: string;
  readonly unit: "transactions" | "rows";
  /** How many of the unit. */
  work(size: Size): number;
  /** Makes the tables on both sides and the source's first rows. */
  prepare(pair: Pair, size: Size): Promise<void>;
  /** Commits the backlog on the source. */
  generate(pair: Pair, size: Size): Promise<void>;
}

/** Often enough to add nothing, rarely enough to take less than a hundredth of a core. */
const POLL_MS = 5;

const REPLICATOR =
  "SELECT FROM pg_stat_activity WHERE backend_type LIKE 'logical replication%worker' OR application_name LIKE 'erserver bench%'";

const EVENTS = `CREATE TABLE event (
  id bigint PRIMARY KEY, kind int NOT NULL, name text NOT NULL, at timestamptz NOT NULL, amount numeric(12, 2) NOT NULL, detail jsonb NOT NULL)`;

/** SQL for the rows with ids from one SQL expression to another. */
const events = (from: string | number, to: string | number): string =>
  `INSERT INTO event SELECT id, id % 100, 'event ' || md5(id::text), timestamptz '2026-01-01 00:00+00' + id * interval '1 second', id % 1000000 * 0.01,
     jsonb_build_object('id', id, 'source', 'bench', 'tags', jsonb_build_array(id % 7, id % 11))
   FROM generate_series(${from}, ${to}) AS id`;

/** One session's SQL on the source, which need not wait for the disk. */
async function write(pair: Pair, sql: string): Promise<void> {
  await pair.source.session.query("SET synchronous_commit = off");
  await pair.source.session.query(sql);
  await pair.source.session.query("RESET synchronous_commit");
}

/** A scenario about one table of events, with rows from the beginning. */
function eventBacklog(backlog: {
  name: string;
  about: string;
  first: number;
  rows: number;
  generate: (size: Size) => string;
}): Scenario {
  return scenarioOf({
    name: backlog.name,
    about: backlog.about,
    unit: "rows",
    work: (size) => size(backlog.rows),
    prepare: async (pair, size) => {
      await onBoth(pair, EVENTS);
      if (backlog.first > 0) await write(pair, events(1, size(backlog.first)));
    },
    generate: (pair, size) => write(pair, backlog.generate(size)),
  });
}

function scenarioOf(backlog: Backlog): Scenario {
  return {
    name: backlog.name,
    about: backlog.about,
    unit: backlog.unit,
    contenders: ["ours", "native"],
    run: async (bench) => {
      const { pair, size } = bench;
      const follower = followerOf(bench);
      await backlog.prepare(pair, size);
      await establish(pair, follower);
      await follower.stop();
      await backlog.generate(pair, size);
      const last = await writeMark(pair);
      await onBoth(pair, "CHECKPOINT");

      const start = performance.now();
      await follower.start();
      await waitUntil(follower, "the replicator's session", POLL_MS, async () => {
        const { rows } = await pair.target.session.query(REPLICATOR);
        return rows.length > 0;
      });
      const started = performance.now();
      await waitUntil(follower, "the backlog", POLL_MS, () => hasMark(pair, last));
      const seconds = (performance.now() - start) / 1000;

      const peak = memory(follower);
      await compare(pair);
      return {
        s: seconds,
        rate: backlog.work(size) / seconds,
        startup_s: (started - start) / 1000,
        ...peak,
      };
    },
  };
}

const TPCB_SCALE = 20;
const TPCB_CLIENTS = 4;

/** At least one transaction for each client. */
const perClient = (size: Size): number => Math.ceil(size(200_000) / TPCB_CLIENTS);

/** The tables of pgbench on both sides, with rows on the source. */
export async function preparePgbench(pair: Pair, scale: number): Promise<void> {
  await pgbench(pair.source.cluster, ["-i", "-q", "-I", "dtGp", "-s", String(scale)]);
  await pgbench(pair.target.cluster, ["-i", "-q", "-I", "dtp", "-s", String(scale)]);
}

const COMMIT_EVERY = 1000;

function tpcb(name: string, prepare: (pair: Pair, scale: number) => Promise<void>): Scenario {
  return scenarioOf({
    name,
    about: `200,000 TPC-B transactions of pgbench, scale ${TPCB_SCALE}`,
    unit: "transactions",
    work: (size) => perClient(size) * TPCB_CLIENTS,
    prepare: (pair, size) => prepare(pair, size(TPCB_SCALE)),
    generate: async (pair, size) => {
      const load = ["-n", "-c", String(TPCB_CLIENTS), "-j", "2", "--random-seed=1"];
      await pgbench(pair.source.cluster, [...load, "-t", String(perClient(size))], { durable: false });
    },
  });
}

export const TPCB = tpcb("backlog-tpcb", preparePgbench);

/** For trigger capture: the table of the history has no key by itself. */
export async function prepareKeyedPgbench(pair: Pair, scale: number): Promise<void> {
  await preparePgbench(pair, scale);
  await onBoth(
    pair,
    "ALTER TABLE pgbench_history ADD id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
  );
}

export const TRIGGER_TPCB: Scenario = {
  ...tpcb("trigger-backlog", prepareKeyedPgbench),
  yaml: "capture: trigger",
};

export const INSERT: Scenario = eventBacklog({
  name: "backlog-insert",
  about: "2,000 transactions that insert 1,000 rows each",
  first: 0,
  rows: 2_000_000,
  generate: (size) => `DO $$ BEGIN
    FOR low IN 1 .. ${size(2_000_000)} BY ${COMMIT_EVERY} LOOP
      ${events("low", `least(low + ${COMMIT_EVERY - 1}, ${size(2_000_000)})`)};
      COMMIT;
    END LOOP;
  END $$`,
});

export const BACKLOGS: readonly Scenario[] = [
  TPCB,
  INSERT,
  eventBacklog({
    name: "insert-1tx",
    about: "one transaction that inserts 2,000,000 rows",
    first: 0,
    rows: 2_000_000,
    generate: (size) => events(1, size(2_000_000)),
  }),
  eventBacklog({
    name: "update-1tx",
    about: "one transaction that updates 1,000,000 rows",
    first: 1_000_000,
    rows: 1_000_000,
    generate: () => "UPDATE event SET amount = amount + 1, kind = kind + 1",
  }),
  eventBacklog({
    name: "delete-1tx",
    about: "one transaction that deletes 1,000,000 of 1,100,000 rows",
    first: 1_100_000,
    rows: 1_000_000,
    generate: () => "DELETE FROM event WHERE id % 11 <> 0",
  }),
];

const WIDE_COLUMNS = 200;
const LARGE_ROW_BYTES = 1024 * 1024;
const TABLES = 2000;

const columnNames = Array.from({ length: WIDE_COLUMNS - 1 }, (_, column) => `c${column + 1}`);

/** What the others have little of: columns, bytes in a row, tables. Look at the peak memory too. */
export const SHAPES: readonly Scenario[] = [
  scenarioOf({
    name: "backlog-wide",
    about: `20,000 rows of ${WIDE_COLUMNS} columns inserted, then updated, 100 a transaction`,
    unit: "rows",
    work: (size) => 2 * size(20_000),
    prepare: (pair) =>
      onBoth(
        pair,
        `CREATE TABLE wide (id int PRIMARY KEY, ${columnNames.map((name, at) => `${name} ${at % 2 === 0 ? "int" : "text"}`).join(", ")})`,
      ),
    generate: (pair, size) =>
      write(
        pair,
        `DO $$ BEGIN
          FOR low IN 1 .. ${size(20_000)} BY 100 LOOP
            INSERT INTO wide SELECT id, ${columnNames.map((_, at) => (at % 2 === 0 ? `id + ${at}` : `'text ' || id + ${at}`)).join(", ")}
              FROM generate_series(low, low + 99) AS id;
            COMMIT;
            UPDATE wide SET c1 = -c1, c2 = c2 || '.' WHERE id BETWEEN low AND low + 99;
            COMMIT;
          END LOOP;
        END $$`,
      ),
  }),
  scenarioOf({
    name: "backlog-large-rows",
    about: "500 rows of 1 MB each, one a transaction",
    unit: "rows",
    work: (size) => size(500),
    prepare: (pair) =>
      onBoth(
        pair,
        "CREATE TABLE large (id int PRIMARY KEY, body text); ALTER TABLE large ALTER body SET STORAGE EXTERNAL",
      ),
    generate: (pair, size) =>
      write(
        pair,
        `DO $$ BEGIN
          FOR id IN 1 .. ${size(500)} LOOP
            INSERT INTO large VALUES (id, repeat(md5(id::text), ${LARGE_ROW_BYTES / 32}));
            COMMIT;
          END LOOP;
        END $$`,
      ),
  }),
  scenarioOf({
    name: "backlog-tables",
    about: `2,000 tables: 10 transactions for each, of one row inserted and one updated`,
    unit: "transactions",
    work: (size) => 10 * size(TABLES),
    prepare: (pair, size) =>
      onBoth(
        pair,
        `DO $$ BEGIN
          FOR n IN 1 .. ${size(TABLES)} LOOP
            EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, v text)', n);
            COMMIT;
          END LOOP;
        END $$`,
      ),
    generate: (pair, size) =>
      write(
        pair,
        `DO $$ BEGIN
          FOR id IN 1 .. 10 LOOP
            FOR n IN 1 .. ${size(TABLES)} LOOP
              EXECUTE format('INSERT INTO t%s VALUES (%s, ''new''); UPDATE t%1$s SET v = ''%2$s'' WHERE id = %2$s', n, id);
              COMMIT;
            END LOOP;
          END LOOP;
        END $$`,
      ),
  }),
];
