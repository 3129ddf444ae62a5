import * as fc from "fast-check";
import { escapeIdentifier } from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { type FreshDatabase, freshDatabase, sharedCluster, testMajor } from "../../test/support/clusters.ts";
import { type Change, RowChange, TruncateChange } from "../change/change.ts";
import { formatLsn, parseLsn } from "../change/lsn.ts";
import type { Transaction } from "../change/transaction.ts";
import { COLUMN_BINARY, COLUMN_NULL, COLUMN_TEXT, COLUMN_UNCHANGED, TupleReader } from "../change/tuple.ts";
import { PgoutputDecoder } from "./decoder.ts";
import { NO_STREAMS } from "../../test/support/no-streams.ts";

type Format = "text" | "binary";

/** A column type, and its values in the form that its input function reads. */
interface ColumnType {
  readonly sql: string;
  readonly value: fc.Arbitrary<string>;
}

const number = (min: number, max: number): fc.Arbitrary<string> => fc.integer({ min, max }).map(String);
const text = fc.string({ unit: "grapheme", maxLength: 20 }).map((value) => value.replaceAll("\0", ""));
const floatText = (value: number): string => (Object.is(value, -0) ? "-0" : String(value));
const microseconds = fc.integer({ min: -60_000_000_000_000, max: 60_000_000_000_000 });

const TYPES: readonly ColumnType[] = [
  { sql: "bool", value: fc.boolean().map(String) },
  { sql: "int2", value: number(-32768, 32767) },
  { sql: "int4", value: number(-2147483648, 2147483647) },
  { sql: "int8", value: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map(String) },
  { sql: "float4", value: fc.float({ noDefaultInfinity: true }).map(floatText) },
  { sql: "float8", value: fc.double().map(floatText) },
  {
    sql: "numeric",
    value: fc.oneof(
      fc.constantFrom("NaN", "0", "-0.000", "1e-400", "1e400"),
      fc.tuple(fc.bigInt({ min: -(10n ** 40n), max: 10n ** 40n }), fc.nat()).map(([a, b]) => `${a}.${b}`),
    ),
  },
  { sql: "text", value: text },
  { sql: "varchar(100)", value: text.map((value) => value.slice(0, 50)) },
  { sql: "char(12)", value: fc.string({ maxLength: 12 }).map((value) => value.replaceAll("\0", "")) },
  { sql: "bytea", value: fc.uint8Array().map((bytes) => `\\x${Buffer.from(bytes).toString("hex")}`) },
  {
    sql: "date",
    value: fc.constantFrom("4713-01-01 BC", "infinity", "-infinity", "2000-02-29", "5874897-12-31"),
  },
  { sql: "timestamp", value: microseconds.map((value) => new Date(value / 1000).toISOString().slice(0, -1)) },
  { sql: "timestamptz", value: microseconds.map((value) => new Date(value / 1000).toISOString()) },
  {
    sql: "interval",
    value: fc.tuple(fc.integer({ min: -999, max: 999 }), fc.nat()).map(([a, b]) => `${a} mon ${b} us`),
  },
  { sql: "uuid", value: fc.uuid() },
  { sql: "json", value: fc.json() },
  { sql: "jsonb", value: fc.json({ stringUnit: "grapheme-ascii" }) },
  { sql: "inet", value: fc.oneof(fc.ipV4(), fc.ipV6()) },
  { sql: "bit(5)", value: fc.nat({ max: 31 }).map((value) => value.toString(2).padStart(5, "0")) },
  { sql: "money", value: fc.integer().map((cents) => (cents / 100).toFixed(2)) },
  {
    sql: "int4range",
    value: fc.tuple(fc.nat(), fc.nat()).map(([a, b]) => `[${Math.min(a, b)},${Math.max(a, b)})`),
  },
  {
    sql: "int4[]",
    value: fc
      .array(fc.option(fc.integer()))
      .map((items) => `{${items.map((item) => item ?? "NULL").join()}}`),
  },
  {
    sql: "text[]",
    value: fc
      .array(text)
      .map((items) => `{${items.map((item) => `"${item.replaceAll(/["\\]/g, "\\$&")}"`).join()}}`),
  },
  { sql: "mood", value: fc.constantFrom("sad", "ok", "happy", "Très content") },
];

type Step =
  | { readonly kind: "insert"; readonly id: number; readonly values: readonly (string | null)[] }
  | { readonly kind: "update"; readonly id: number; readonly values: readonly (string | null)[] }
  | { readonly kind: "rekey"; readonly id: number; readonly to: number }
  | { readonly kind: "delete"; readonly id: number }
  | { readonly kind: "long"; readonly id: number; readonly length: number }
  | { readonly kind: "commit" }
  | { readonly kind: "rollback" };

interface Scenario {
  readonly name: string;
  readonly identity: "default" | "full";
  readonly columns: readonly { readonly name: string; readonly type: ColumnType }[];
  readonly steps: readonly Step[];
}

const identifier = fc
  .string({ unit: "grapheme", minLength: 1, maxLength: 10 })
  .map((value) => value.replaceAll("\0", "_"))
  // The server cuts names at 63 bytes; the table's name gets two more.
  .filter((value) => Buffer.byteLength(value) <= 61);
const id = fc.integer({ min: 1, max: 12 });

const scenario: fc.Arbitrary<Scenario> = fc
  .record({
    name: identifier,
    identity: fc.constantFrom("default" as const, "full" as const),
    columns: fc.uniqueArray(fc.record({ name: identifier, type: fc.constantFrom(...TYPES) }), {
      selector: (column) => column.name,
      minLength: 1,
      maxLength: 8,
    }),
  })
  .chain((shape) => {
    const values = fc.tuple(...shape.columns.map(({ type }) => fc.option(type.value, { freq: 6 })));
    const step: fc.Arbitrary<Step> = fc.oneof(
      { weight: 6, arbitrary: fc.record({ kind: fc.constant("insert" as const), id, values }) },
      { weight: 4, arbitrary: fc.record({ kind: fc.constant("update" as const), id, values }) },
      { weight: 2, arbitrary: fc.record({ kind: fc.constant("rekey" as const), id, to: id }) },
      { weight: 2, arbitrary: fc.record({ kind: fc.constant("delete" as const), id }) },
      {
        weight: 2,
        arbitrary: fc.record({
          kind: fc.constant("long" as const),
          id,
          length: fc.integer({ min: 0, max: 20_000 }),
        }),
      },
      { weight: 2, arbitrary: fc.constant({ kind: "commit" as const }) },
      { weight: 1, arbitrary: fc.constant({ kind: "rollback" as const }) },
    );
    return fc.record({ ...constants(shape), steps: fc.array(step, { minLength: 5, maxLength: 40 }) });
  });

function constants<T extends object>(value: T): { [K in keyof T]: fc.Arbitrary<T[K]> } {
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, fc.constant(item)])) as {
    [K in keyof T]: fc.Arbitrary<T[K]>;
  };
}

/** A row as hexadecimal values by column name; null for NULL. */
type Row = ReadonlyMap<string, string | null>;

interface Decoded {
  readonly transactions: readonly Transaction[];
  readonly changes: readonly Change[];
}

describe("the decoder on what a real server sends", () => {
  let database: FreshDatabase;
  const formats: readonly Format[] = testMajor("source") >= 14 ? ["text", "binary"] : ["text"];

  beforeAll(async () => {
    database = await freshDatabase(sharedCluster("source"));
    await database.query("CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy', 'Très content')");
    await database.query("CREATE PUBLICATION p FOR ALL TABLES");
    for (const format of formats) {
      await database.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [slot(format)]);
    }
  });

  afterAll(async () => {
    await database[Symbol.asyncDispose]();
  });

  function slot(format: Format): string {
    return `${database.name}_${format}`;
  }

  async function decodeAll(format: Format): Promise<Decoded> {
    // A session of its own: PostgreSQL 10 crashes at the next DDL of one that has decoded.
    const session = await database.connect();
    const { rows } = await session.query<{ data: Buffer }>(
      `SELECT data FROM pg_logical_slot_get_binary_changes($1, NULL, NULL, 'proto_version', '1', 'publication_names', 'p'
       ${format === "binary" ? ", 'binary', 'true'" : ""})`,
      [slot(format)],
    );
    await session.end();
    const transactions: Transaction[] = [];
    const changes: Change[] = [];
    const decoder = new PgoutputDecoder({
      ...NO_STREAMS,
      begin: () => {},
      change: (change) => changes.push(change),
      commit: (transaction) => transactions.push(transaction),
    });
    for (const { data } of rows) decoder.decode(data, 0, data.length);
    expect(decoder.inTransaction).toBe(false);
    return { transactions, changes };
  }

  /** What the server itself says is in the table, in the form that pgoutput sends. */
  async function contents(table: string, format: Format): Promise<Map<string, Row>> {
    const columns = await database.query<{ name: string; send: string }>(
      `SELECT a.attname AS name, t.typsend::text AS send FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
       WHERE a.attrelid = $1::regclass AND a.attnum > 0 ORDER BY a.attnum`,
      [escapeIdentifier(table)],
    );
    const values = columns.map(({ name, send }) => {
      const column = escapeIdentifier(name);
      // format() calls the output function; a cast to text would not (bool, char).
      const bytes =
        format === "binary" ? `${send}(${column})` : `convert_to(format('%s', ${column}), 'UTF8')`;
      return `CASE WHEN ${column} IS NOT NULL THEN encode(${bytes}, 'hex') END`;
    });
    const rows = await database.query<{ values: (string | null)[] }>(
      `SELECT ARRAY[${values.join()}] AS values FROM ${escapeIdentifier(table)}`,
    );
    return new Map(
      rows.map((row) => [
        row.values[0] as string,
        new Map(columns.map(({ name }, i) => [name, row.values[i] ?? null])),
      ]),
    );
  }

  async function run(table: string, steps: readonly Step[], columns: Scenario["columns"]): Promise<void> {
    const quoted = escapeIdentifier(table);
    const names = columns.map(({ name }) => escapeIdentifier(name));
    const parameters = columns.map(({ type }, i) => `$${i + 2}::${type.sql}`);
    await database.query("BEGIN");
    for (const step of steps) {
      switch (step.kind) {
        case "insert":
          await database.query(
            `INSERT INTO ${quoted} (id, ${names.join()}) VALUES ($1, ${parameters.join()}) ON CONFLICT DO NOTHING`,
            [step.id, ...step.values],
          );
          break;
        case "update":
          await database.query(
            `UPDATE ${quoted} SET (${names.join()}) = ROW(${parameters.join()}) WHERE id = $1`,
            [step.id, ...step.values],
          );
          break;
        case "rekey":
          await database.query(
            `UPDATE ${quoted} SET id = $2 WHERE id = $1 AND NOT EXISTS (SELECT FROM ${quoted} WHERE id = $2)`,
            [step.id, step.to],
          );
          break;
        case "delete":
          await database.query(`DELETE FROM ${quoted} WHERE id = $1`, [step.id]);
          break;
        case "long":
          await database.query(`UPDATE ${quoted} SET "stored elsewhere" = repeat('é', $2) WHERE id = $1`, [
            step.id,
            step.length,
          ]);
          break;
        case "commit":
          await database.query("COMMIT");
          await database.query("BEGIN");
          break;
        case "rollback":
          await database.query("ROLLBACK");
          await database.query("BEGIN");
          break;
      }
    }
    await database.query("COMMIT");
  }

  test.for(formats)(
    "%s: random tables and values come out as the server prints them",
    { timeout: 120_000 },
    async (format) => {
      await fc.assert(
        fc.asyncProperty(scenario, async ({ name, identity, columns, steps }) => {
          const table = `t ${name}`;
          const quoted = escapeIdentifier(table);
          const definitions = columns.map((column) => `${escapeIdentifier(column.name)} ${column.type.sql}`);
          await database.query(`DROP TABLE IF EXISTS ${quoted}`);
          fc.pre(columns.every((column) => column.name !== "id"));
          await database.query(
            `CREATE TABLE ${quoted} (id int PRIMARY KEY, ${definitions.join()}, "stored elsewhere" text)`,
          );
          await database.query(
            `ALTER TABLE ${quoted} ALTER "stored elsewhere" SET STORAGE EXTERNAL, REPLICA IDENTITY ${identity}`,
          );
          await run(table, steps, columns);
          // The slots also hold changes of earlier tables, which may have had the same name.
          const [made] = await database.query<{ oid: number }>("SELECT $1::regclass::oid AS oid", [quoted]);
          const { changes } = await decodeAll(format);
          expect(replay(changes, made!.oid, identity, format)).toEqual(await contents(table, format));
          await database.query(`DROP TABLE ${quoted}`);
        }),
        { numRuns: 50 },
      );
    },
  );

  test("a transaction has the server's xid, time and positions", async () => {
    await database.query("CREATE TABLE dated (a int PRIMARY KEY)");
    const now =
      "(extract(epoch from clock_timestamp()) * 1000000)::bigint AS at, pg_current_wal_insert_lsn()::text AS lsn";
    interface Moment {
      readonly at: string;
      readonly lsn: string;
      readonly xid: string;
    }
    await decodeAll("text");
    const [before] = await database.query<Moment>(`SELECT ${now}`);
    const [inside] = await database.query<Moment>(
      `BEGIN; INSERT INTO dated VALUES (1); SELECT txid_current() % (2^32)::bigint AS xid, ${now}; `,
    );
    await database.query("COMMIT");
    const [after] = await database.query<Moment>(`SELECT ${now}`);
    const { transactions } = await decodeAll("text");
    expect(transactions).toHaveLength(1);
    const [transaction] = transactions;
    expect(String(transaction?.xid)).toBe(inside?.xid);
    expect(transaction?.commitTime).toBeGreaterThanOrEqual(Number(before?.at));
    expect(transaction?.commitTime).toBeLessThanOrEqual(Number(after?.at));
    const positions = [
      inside?.lsn,
      formatLsn(transaction!.commitLsn),
      formatLsn(transaction!.endLsn),
      after?.lsn,
    ];
    const sorted = positions
      .map((lsn) => parseLsn(lsn as string))
      .toSorted((a, b) => (a < b ? -1 : a > b ? 1 : 0));
    expect(positions).toEqual(sorted.map((lsn) => formatLsn(lsn)));
  });

  test.runIf(testMajor("source") >= 11)("TRUNCATE names its tables and options", async () => {
    await database.query("CREATE TABLE one (a serial PRIMARY KEY); CREATE TABLE two (a int REFERENCES one)");
    await decodeAll("text");
    await database.query("TRUNCATE one CASCADE");
    await database.query("TRUNCATE two, one RESTART IDENTITY");
    const { changes } = await decodeAll("text");
    expect(
      changes.map((change) => {
        expect(change).toBeInstanceOf(TruncateChange);
        const { relations, cascade, restartIdentity } = change as TruncateChange;
        return { tables: relations.map((relation) => relation.name).toSorted(), cascade, restartIdentity };
      }),
    ).toEqual([
      { tables: ["one", "two"], cascade: true, restartIdentity: false },
      { tables: ["one", "two"], cascade: false, restartIdentity: true },
    ]);
  });

  test("key columns are marked, and a message or an origin in the stream is passed over", async () => {
    await database.query(
      "CREATE TABLE keyed (a int, b text NOT NULL, c int NOT NULL, UNIQUE (c, b)); ALTER TABLE keyed REPLICA IDENTITY USING INDEX keyed_c_b_key",
    );
    await database.query("INSERT INTO keyed VALUES (1, 'x', 2)");
    await database.query("SELECT pg_replication_origin_create($1)", [database.name]);
    await database.query("SELECT pg_replication_origin_session_setup($1)", [database.name]);
    await database.query("BEGIN");
    await database.query("SELECT pg_replication_origin_xact_setup('0/ABCDEF', now())");
    await database.query("SELECT pg_logical_emit_message(true, 'prefix', 'content')");
    await database.query("DELETE FROM keyed");
    await database.query("COMMIT");
    await database.query("SELECT pg_replication_origin_session_reset()");
    await database.query("SELECT pg_replication_origin_drop($1)", [database.name]);
    const { changes } = await decodeAll("text");
    expect(changes.map((change) => change.kind)).toEqual(["insert", "delete"]);
    const [, deletion] = changes;
    expect(deletion).toMatchObject({
      oldIsKey: true,
      newStart: -1,
      relation: { schema: "public", replicaIdentity: "index" },
    });
    const { columns } = (deletion as RowChange).relation;
    expect(columns.map((column) => column.partOfKey)).toEqual([false, true, true]);
    expect(columns.map((column) => column.typeOid)).toEqual([23, 25, 23]);
  });
});

/** Applies changes to an empty table, from their bytes alone. */
function replay(
  changes: readonly Change[],
  table: number,
  identity: string,
  format: Format,
): Map<string, Row> {
  const rows = new Map<string, Row>();
  const reader = new TupleReader();
  const value = format === "binary" ? COLUMN_BINARY : COLUMN_TEXT;
  const read = (change: RowChange, start: number, before: Row | undefined): Row => {
    reader.reset(change.bytes, start);
    const row = new Map<string, string | null>();
    for (const { name } of change.relation.columns) {
      reader.next();
      if (reader.kind === COLUMN_UNCHANGED) {
        row.set(name, before?.get(name) ?? null);
      } else if (reader.kind === COLUMN_NULL) {
        row.set(name, null);
      } else {
        expect(reader.kind).toBe(value);
        row.set(name, change.bytes.toString("hex", reader.start, reader.start + reader.length));
      }
    }
    return row;
  };
  for (const change of changes) {
    if (!(change instanceof RowChange) || change.relation.id !== table) continue;
    expect(change.relation.replicaIdentity).toBe(identity);
    const old = change.oldStart < 0 ? undefined : read(change, change.oldStart, undefined);
    if (old !== undefined) {
      expect(change.oldIsKey).toBe(identity === "default");
      const known = rows.get(old.get("id") as string);
      if (identity === "full") expect(old).toEqual(known);
      else expect(known).toBeDefined();
    }
    if (change.newStart < 0) {
      rows.delete(old?.get("id") as string);
      continue;
    }
    const key = read(change, change.newStart, undefined).get("id") as string;
    const before =
      change.kind === "insert" ? undefined : rows.get((old?.get("id") as string | undefined) ?? key);
    expect(before !== undefined).toBe(change.kind === "update");
    if (old !== undefined) rows.delete(old.get("id") as string);
    rows.set(key, read(change, change.newStart, before));
  }
  return rows;
}
