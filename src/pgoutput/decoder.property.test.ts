import * as fc from "fast-check";
import { describe, expect, test } from "vitest";

import { type Change, RowChange, TruncateChange } from "../change/change.ts";
import type { Relation } from "../change/relation.ts";
import type { Transaction } from "../change/transaction.ts";
import { COLUMN_BINARY, COLUMN_NULL, COLUMN_TEXT, COLUMN_UNCHANGED, TupleReader } from "../change/tuple.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { PgoutputDecoder } from "./decoder.ts";
import { NO_STREAMS } from "../../test/support/no-streams.ts";

/** An encoder of its own, so that a wrong idea of the format would have to be had twice. */
const int8 = (value: number): Buffer => Buffer.from([value]);
const int16 = (value: number): Buffer => Buffer.from([value >> 8, value & 255]);
const cstring = (text: string): Buffer => Buffer.from(`${text}\0`);
function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value | 0);
  return bytes;
}
function int64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64BE(BigInt.asIntN(64, value));
  return bytes;
}
function message(type: string, ...parts: readonly Buffer[]): Buffer {
  return Buffer.concat([Buffer.from(type), ...parts]);
}

interface Value {
  readonly kind: "n" | "u" | "t" | "b";
  readonly bytes: Buffer;
}

interface Row {
  readonly operation: "insert" | "update" | "delete";
  readonly old: "none" | "key" | "full";
  readonly oldValues: readonly Value[];
  readonly newValues: readonly Value[];
}

interface Table {
  readonly relation: Relation;
  readonly rows: readonly Row[];
}

interface Commit {
  readonly xid: number;
  readonly commitLsn: bigint;
  readonly recordLength: bigint;
  /** Microseconds since 2000. */
  readonly time: bigint;
  readonly tables: readonly Table[];
  readonly truncate: { readonly cascade: boolean; readonly restartIdentity: boolean } | null;
}

const IDENTITY_LETTER = { default: "d", nothing: "n", full: "f", index: "i" } as const;

function encodeTuple(values: readonly Value[]): Buffer {
  return Buffer.concat([
    int16(values.length),
    ...values.flatMap(({ kind, bytes }) =>
      kind === "t" || kind === "b" ? [Buffer.from(kind), int32(bytes.length), bytes] : [Buffer.from(kind)],
    ),
  ]);
}

function encodeRelation(relation: Relation): Buffer {
  return message(
    "R",
    int32(relation.id),
    cstring(relation.schema === "pg_catalog" ? "" : relation.schema),
    cstring(relation.name),
    Buffer.from(IDENTITY_LETTER[relation.replicaIdentity]),
    int16(relation.columns.length),
    ...relation.columns.flatMap((column) => [
      int8(column.partOfKey ? 1 : 0),
      cstring(column.name),
      int32(column.typeOid),
      int32(column.typeModifier),
    ]),
  );
}

function encodeRow(relation: Relation, row: Row): Buffer {
  const id = int32(relation.id);
  const old = [Buffer.from(row.old === "key" ? "K" : "O"), encodeTuple(row.oldValues)];
  const now = [Buffer.from("N"), encodeTuple(row.newValues)];
  if (row.operation === "insert") return message("I", id, ...now);
  if (row.operation === "delete") return message("D", id, ...old);
  return message("U", id, ...(row.old === "none" ? [] : old), ...now);
}

function encodeCommit(commit: Commit): Buffer[] {
  const { commitLsn, recordLength, time, tables, truncate } = commit;
  return [
    message("B", int64(commitLsn), int64(time), int32(commit.xid)),
    message("O", int64(commitLsn), cstring("elsewhere")),
    ...tables.flatMap(({ relation, rows }) => [
      message("Y", int32(70_000), cstring("public"), cstring("mood")),
      encodeRelation(relation),
      ...rows.map((row) => encodeRow(relation, row)),
    ]),
    message("M", int8(1), int64(commitLsn), cstring("prefix"), int32(3), Buffer.from("abc")),
    ...(truncate === null
      ? []
      : [
          message(
            "T",
            int32(tables.length),
            int8((truncate.cascade ? 1 : 0) + (truncate.restartIdentity ? 2 : 0)),
            ...tables.map(({ relation }) => int32(relation.id)),
          ),
        ]),
    message("C", int8(0), int64(commitLsn), int64(commitLsn + recordLength), int64(time)),
  ];
}

const value: fc.Arbitrary<Value> = fc.oneof(
  fc.constantFrom<Value>({ kind: "n", bytes: Buffer.alloc(0) }, { kind: "u", bytes: Buffer.alloc(0) }),
  fc.record({
    kind: fc.constantFrom("t" as const, "b" as const),
    bytes: fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
  }),
);

const name = fc
  .string({ unit: "grapheme", minLength: 1, maxLength: 12 })
  .map((text) => text.replaceAll("\0", "_"));
const oid = fc.integer({ min: 1, max: 0xffffffff });

const table: fc.Arbitrary<Table> = fc
  .record({
    id: oid,
    schema: fc.oneof(name, fc.constant("pg_catalog")),
    name,
    replicaIdentity: fc.constantFrom(
      "default" as const,
      "nothing" as const,
      "full" as const,
      "index" as const,
    ),
    columns: fc.array(
      fc.record({ name, typeOid: oid, typeModifier: fc.integer(), partOfKey: fc.boolean() }),
      { maxLength: 12 },
    ),
  })
  .chain((described) => {
    const { replicaIdentity, columns } = described;
    const relation: Relation = {
      ...described,
      columns: columns.map((column) => ({
        ...column,
        partOfKey: column.partOfKey || replicaIdentity === "full",
      })),
    };
    const values = fc.array(value, { minLength: columns.length, maxLength: columns.length });
    const row: fc.Arbitrary<Row> = fc
      .record({
        operation: fc.constantFrom("insert" as const, "update" as const, "delete" as const),
        old: fc.constantFrom("none" as const, "key" as const, "full" as const),
        oldValues: values,
        newValues: values,
      })
      .map((change) =>
        change.operation === "delete" && change.old === "none" ? { ...change, old: "key" as const } : change,
      );
    return fc.record({ relation: fc.constant(relation), rows: fc.array(row, { maxLength: 6 }) });
  });

const commit: fc.Arbitrary<Commit> = fc.record({
  xid: oid,
  commitLsn: fc.bigInt({ min: 1n, max: 0xffffffff_00000000n }),
  recordLength: fc.bigInt({ min: 1n, max: 1000n }),
  // Up to the year 2285; 64 bits of microseconds would not fit a number.
  time: fc.bigInt({ min: -1_000_000_000_000_000n, max: 8_000_000_000_000_000n }),
  tables: fc.uniqueArray(table, { selector: ({ relation }) => relation.id, minLength: 1, maxLength: 3 }),
  truncate: fc.option(fc.record({ cascade: fc.boolean(), restartIdentity: fc.boolean() })),
});

interface Heard {
  readonly transactions: Transaction[];
  readonly changes: Change[];
  commits: number;
}

function listen(): { readonly heard: Heard; readonly decoder: PgoutputDecoder } {
  const heard: Heard = { transactions: [], changes: [], commits: 0 };
  const decoder = new PgoutputDecoder({
    ...NO_STREAMS,
    begin: (transaction) => heard.transactions.push(transaction),
    change: (change) => heard.changes.push(change),
    commit: () => heard.commits++,
  });
  return { heard, decoder };
}

/** Decodes a message that lies in the middle of other bytes, as it does in a socket chunk. */
function decode(decoder: PgoutputDecoder, bytes: Buffer, end = bytes.length): void {
  const chunk = Buffer.concat([Buffer.alloc(7, 0x62), bytes.subarray(0, end), Buffer.alloc(64, 0x74)]);
  decoder.decode(chunk, 7, 7 + end);
}

function readTuple(change: RowChange, start: number): Value[] {
  const reader = new TupleReader().reset(change.bytes, start);
  const values: Value[] = [];
  for (let i = 0; i < reader.columns; i++) {
    reader.next();
    const kind = String.fromCharCode(reader.kind) as Value["kind"];
    expect([COLUMN_NULL, COLUMN_UNCHANGED, COLUMN_TEXT, COLUMN_BINARY]).toContain(reader.kind);
    expect(reader.length).toBeGreaterThanOrEqual(0);
    values.push({ kind, bytes: reader.bytes.subarray(reader.start, reader.start + reader.length) });
  }
  // `decode` above puts every message between 7 and 64 other bytes.
  expect(reader.position).toBeLessThanOrEqual(change.bytes.length - 64);
  return values;
}

function readRow(change: RowChange): Row {
  const oldValues = change.oldStart < 0 ? [] : readTuple(change, change.oldStart);
  const newValues = change.newStart < 0 ? [] : readTuple(change, change.newStart);
  const old = change.oldStart < 0 ? "none" : change.oldIsKey ? "key" : "full";
  return { operation: change.kind, old, oldValues, newValues };
}

/** What a row is expected to be read back as: images that its operation does not send are absent. */
function sent(row: Row): Row {
  const old = row.operation === "insert" ? "none" : row.old;
  return {
    operation: row.operation,
    old,
    oldValues: old === "none" ? [] : row.oldValues,
    newValues: row.operation === "delete" ? [] : row.newValues,
  };
}

describe("PgoutputDecoder", () => {
  test("gives back whatever was encoded", () => {
    fc.assert(
      fc.property(fc.array(commit, { maxLength: 3 }), (commits) => {
        const { heard, decoder } = listen();
        for (const one of commits) {
          heard.changes.length = 0;
          const messages = encodeCommit(one);
          for (const [i, bytes] of messages.entries()) {
            expect(decoder.inTransaction).toBe(i > 0);
            decode(decoder, bytes);
          }
          expect(decoder.inTransaction).toBe(false);
          expect(heard.transactions.at(-1)).toEqual({
            xid: one.xid,
            commitLsn: one.commitLsn,
            endLsn: one.commitLsn + one.recordLength,
            commitTime: Number(one.time + 946_684_800_000_000n),
          });
          const rows = heard.changes.filter((change) => change instanceof RowChange);
          expect(rows.map((change) => readRow(change))).toEqual(
            one.tables.flatMap((described) => described.rows.map((row) => sent(row))),
          );
          expect(rows.map((change) => change.relation)).toEqual(
            one.tables.flatMap(({ relation, rows: changed }) => changed.map(() => relation)),
          );
          const truncates = heard.changes.filter((change) => change instanceof TruncateChange);
          expect(
            truncates.map(({ relations, cascade, restartIdentity }) => ({
              relations,
              cascade,
              restartIdentity,
            })),
          ).toEqual(
            one.truncate === null
              ? []
              : [{ relations: one.tables.map(({ relation }) => relation), ...one.truncate }],
          );
        }
        expect(heard.commits).toBe(commits.length);
      }),
      { numRuns: 300 },
    );
  });

  test("a message cut short anywhere is malformed, and the sink does not hear of it", () => {
    fc.assert(
      fc.property(commit, (one) => {
        const messages = encodeCommit(one);
        for (const [i, bytes] of messages.entries()) {
          for (let end = 0; end < bytes.length; end++) {
            const { heard, decoder } = listen();
            for (const before of messages.slice(0, i)) decode(decoder, before);
            const known = heard.changes.length;
            expect(() => decode(decoder, bytes, end)).toThrow(
              expect.objectContaining({
                code: "ERS-601",
                message: expect.stringMatching(/at byte \d+ of \d+/),
              }),
            );
            expect(heard.changes).toHaveLength(known);
          }
        }
      }),
      { numRuns: 20 },
    );
  });

  test("a message with a byte too many is malformed", () => {
    fc.assert(
      fc.property(commit, (one) => {
        const { decoder } = listen();
        for (const bytes of encodeCommit(one)) {
          expect(() => decode(decoder, Buffer.concat([bytes, int8(0)]))).toThrow(
            expect.objectContaining({ code: "ERS-601" }),
          );
          decode(decoder, bytes);
        }
      }),
      { numRuns: 100 },
    );
  });

  test("flipped bits give an ErserverError or changes that can be read within their message", () => {
    fc.assert(
      fc.property(commit, fc.array(fc.nat(), { minLength: 1, maxLength: 3 }), (one, flips) => {
        const { heard, decoder } = listen();
        const messages = encodeCommit(one);
        for (const flip of flips) {
          const bytes = messages[flip % messages.length] as Buffer;
          const bit = Math.floor(flip / messages.length) % (bytes.length * 8);
          bytes.writeUInt8(bytes.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
        }
        try {
          for (const bytes of messages) decode(decoder, bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(ErserverError);
          expect(["ERS-601", "ERS-603"]).toContain((error as ErserverError).code);
        }
        for (const change of heard.changes) {
          if (!(change instanceof RowChange)) continue;
          const row = readRow(change);
          const count = change.relation.columns.length;
          if (change.oldStart >= 0) expect(row.oldValues).toHaveLength(count);
          if (change.newStart >= 0) expect(row.newValues).toHaveLength(count);
          expect(change.oldStart >= 0 || change.newStart >= 0).toBe(true);
        }
        for (const { commitTime, xid } of heard.transactions) {
          expect(Number.isSafeInteger(commitTime)).toBe(true);
          expect(Number.isSafeInteger(xid)).toBe(true);
        }
      }),
      { numRuns: 3000 },
    );
  });

  test("noise gives an ErserverError", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...Buffer.from("BCROYIUDTMSEcbPKr\0")),
        fc.uint8Array({ maxLength: 60 }),
        (type, noise) => {
          const { decoder } = listen();
          try {
            decode(decoder, Buffer.from([type, ...noise]));
          } catch (error) {
            expect(error).toBeInstanceOf(ErserverError);
          }
        },
      ),
      { numRuns: 3000 },
    );
  });
});
