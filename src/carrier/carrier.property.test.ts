import { createHash } from "node:crypto";
import { Readable, Writable } from "node:stream";
import { inspect } from "node:util";
import { gunzipSync, gzipSync } from "node:zlib";
import { generateIdentity, identityToRecipient } from "age-encryption";
import * as fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { rowChange } from "../../test/support/row-changes.ts";
import { type Change, RowChange, TruncateChange } from "../change/change.ts";
import type { Relation } from "../change/relation.ts";
import { COLUMN_NULL, TupleReader } from "../change/tuple.ts";
import { readCarrier } from "./carrier-reader.ts";
import { CarrierWriter, type CarrierWriterOptions } from "./carrier-writer.ts";
import { encrypterFor } from "./encryption.ts";
import { type CarrierHeader, MAGIC } from "./format.ts";

const RELATIONS = ["t", "u"].map((name, index): Relation => ({
  id: 16_384 + index,
  schema: "public",
  name,
  replicaIdentity: "index",
  columns: ["id", "v", "w"].slice(0, 3 - index).map((column) => ({
    name: column,
    typeOid: 25,
    typeModifier: -1,
    partOfKey: column === "id",
  })),
}));

const HEADER: CarrierHeader = {
  erserver: "0.1.0",
  source: { systemIdentifier: "7123", database: "booktown", databaseOid: 5, version: "15.18" },
  name: "pma",
  carrier: "0b6a2d0e-0000-4000-8000-000000000000",
  sync: 2,
  base: 1,
  snapshot: "10:12:11",
  baseSnapshot: "5:5:",
  preparedAt: 1_700_000_000_000_000,
  encoding: "UTF8",
  tables: [],
};

const never = new AbortController().signal;

async function write(changes: readonly Change[], recipient?: string): Promise<Buffer> {
  const parts: Buffer[] = [];
  const output = new Writable({
    write: (part: Buffer, _encoding, done) => {
      parts.push(part);
      done();
    },
  });
  const writer = new CarrierWriter(output, {
    header: HEADER,
    relations: RELATIONS,
    encrypter: recipient === undefined ? undefined : await encrypterFor(recipient),
    signal: never,
  });
  for (const change of changes) {
    writer.change(change);
    if (writer.full) await writer.whenRoom();
  }
  await writer.finish();
  const file = Buffer.concat(parts);
  expect(writer.bytes).toBe(file.length);
  return file;
}

interface ReadBack {
  readonly header: CarrierHeader;
  readonly changes: readonly unknown[];
  readonly rows: number;
}

/** What a change says, for comparison. */
function said(change: Change): unknown {
  if (change instanceof TruncateChange)
    return { emptied: change.relations.map(({ name }) => name), asDelete: change.asDelete };
  const { kind, relation, bytes, oldStart, newStart } = change;
  const tuple = new TupleReader().reset(bytes, kind === "delete" ? oldStart : newStart);
  const values = Array.from({ length: tuple.columns }, () => {
    tuple.next();
    return tuple.kind === COLUMN_NULL
      ? null
      : bytes.subarray(tuple.start, tuple.start + tuple.length).toString();
  });
  return { kind, table: relation.name, values };
}

/** Rejects when the file is refused, with what had been received disposed of. */
async function read(file: Buffer, identity?: string, pieces: readonly number[] = []): Promise<ReadBack> {
  const cuts = [0, ...pieces.map((place) => place % (file.length + 1)), file.length].toSorted(
    (a, b) => a - b,
  );
  const chunks = cuts.slice(1).map((end, index) => file.subarray(cuts[index], end));
  const changes: unknown[] = [];
  let header: CarrierHeader | undefined;
  let disposed = false;
  try {
    const { rows } = await readCarrier(
      Readable.from(chunks.filter((chunk) => chunk.length > 0)),
      { identity, signal: never },
      (received) => {
        header = received;
        const sink = {
          change: (change: Change) => void changes.push(said(change)),
          full: false,
          whenRoom: () => Promise.resolve(),
        };
        return Promise.resolve({
          relations: RELATIONS,
          sink,
          failed: new Promise<never>(() => {}),
          [Symbol.asyncDispose]: () => {
            disposed = true;
            return Promise.resolve();
          },
        });
      },
    );
    expect(disposed).toBe(false);
    return { header: header as CarrierHeader, changes, rows };
  } catch (error) {
    expect(disposed).toBe(header !== undefined);
    throw error;
  }
}

const values = (relation: Relation): fc.Arbitrary<(string | null)[]> =>
  fc.array(fc.option(fc.string({ unit: "grapheme" })), {
    minLength: relation.columns.length,
    maxLength: relation.columns.length,
  });

const anyChange: fc.Arbitrary<Change> = fc.constantFrom(...RELATIONS).chain((relation) =>
  fc.oneof(
    values(relation).map((row) => rowChange("insert", relation, undefined, row)),
    values(relation).map((row) => rowChange("update", relation, undefined, row)),
    fc.string().map((key) => rowChange("delete", relation, key, undefined)),
    fc.constant(new TruncateChange([relation], false, false, 0, true)),
    fc.constant(new TruncateChange(RELATIONS, false, false, 0)),
  ),
);

const [T, U] = RELATIONS as [Relation, Relation];

const FEW: readonly Change[] = [
  new TruncateChange([U], false, false, 0, true),
  rowChange("delete", T, "5", undefined),
  rowChange("insert", T, undefined, ["1", null, "O'Neill\\\t\n"]),
  rowChange("update", U, undefined, ["2", ""]),
];

const REFUSED = { code: expect.stringMatching(/^ERS-60[4567]$/) as string };

let identity: string;
let recipient: string;

beforeAll(async () => {
  identity = await generateIdentity();
  recipient = await identityToRecipient(identity);
});

/** Writes while nothing is taken until there is no room, soon; then gives up. */
async function fillUp(options: Omit<CarrierWriterOptions, "signal">): Promise<void> {
  const stuck = new Writable({ write: () => {} });
  const abort = new AbortController();
  const writer = new CarrierWriter(stuck, { ...options, signal: abort.signal });
  for (let row = 0; !writer.full || row % 1000 !== 0; row++) {
    const noise = createHash("sha512").update(String(row)).digest("base64");
    writer.change(rowChange("insert", U, undefined, [String(row), noise]));
    // The compressor takes what it can.
    if (row % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
    expect(row).toBeLessThan(40_000);
  }
  const waiting = writer.whenRoom();
  abort.abort();
  await waiting;
  await expect(writer.failed).rejects.toMatchObject({ name: "AbortError" });
}

describe("a carrier file", () => {
  test("brings what was written, however it is cut on the way", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(anyChange, { maxLength: 30 }),
        fc.array(fc.nat(), { maxLength: 10 }),
        fc.boolean(),
        async (changes, pieces, isEncrypted) => {
          const file = await write(changes, isEncrypted ? recipient : undefined);
          const {
            header,
            changes: found,
            rows,
          } = await read(file, isEncrypted ? identity : undefined, pieces);
          expect(header).toEqual(HEADER);
          expect(found).toEqual(changes.map(said));
          expect(rows).toBe(changes.filter((change) => change instanceof RowChange).length);
        },
      ),
      { numRuns: 150 },
    );
  });

  test("brings values that are larger than any buffer (T8)", async () => {
    const large = createHash("sha512").update("x").digest("hex").repeat(20_000);
    const changes = [
      rowChange("insert", U, undefined, ["1", large]),
      rowChange("insert", U, undefined, [large, null]),
    ];
    expect((await read(await write(changes, recipient), identity)).changes).toEqual(changes.map(said));
  });

  test("that is cut short at any byte is refused (T9)", { timeout: 120_000 }, async () => {
    for (const [file, key] of [
      [await write(FEW), undefined],
      [await write(FEW, recipient), identity],
    ] as const)
      for (let length = 0; length < file.length; length++)
        await expect(read(file.subarray(0, length), key), `${length} bytes`).rejects.toMatchObject({
          code: length === 0 ? "ERS-604" : "ERS-606",
        });
  });

  test("of which any bit is altered is refused (T9)", { timeout: 120_000 }, async () => {
    for (const [file, key] of [
      [await write(FEW), undefined],
      [await write(FEW, recipient), identity],
    ] as const)
      for (let bit = 0; bit < file.length * 8; bit += key === undefined ? 1 : 5) {
        const altered = Buffer.from(file);
        altered[bit >> 3] = (altered[bit >> 3] as number) ^ (1 << (bit & 7));
        await expect(read(altered, key), `bit ${bit}`).rejects.toMatchObject(REFUSED);
      }
  });

  test("with something behind it, or in a place of something in it, is refused", async () => {
    const file = await write(FEW);
    await expect(read(Buffer.concat([file, Buffer.from("\n")]))).rejects.toMatchObject({ code: "ERS-606" });
    await expect(read(Buffer.concat([file, file]))).rejects.toMatchObject({ code: "ERS-606" });
    const dos = Buffer.concat([Buffer.from(`${MAGIC}1\r\n`), file.subarray(MAGIC.length + 2)]);
    await expect(read(dos)).rejects.toMatchObject({ code: "ERS-604" });
  });

  test("whose records do not fit together is refused, though its digest is right", async () => {
    const line = Buffer.from(`${MAGIC}1\n`);
    const file = await write(FEW);
    const records = gunzipSync(file.subarray(line.length, -32));
    const sealed = (content: Buffer): Buffer => {
      const whole = Buffer.concat([line, gzipSync(content)]);
      return Buffer.concat([whole, createHash("sha256").update(whole).digest()]);
    };
    expect((await read(sealed(records))).changes).toEqual(FEW.map(said));
    const headerLength = 1 + records.readInt32BE(1);
    const [header, rest] = [records.subarray(0, headerLength), records.subarray(headerLength)];
    for (const content of [
      // no header; two; no end; something behind it; none of its records
      rest,
      Buffer.concat([header, records]),
      records.subarray(0, -21),
      Buffer.concat([records, rest.subarray(0, 7)]),
      Buffer.concat([header, rest.subarray(7)]),
      // a table that is not there, a length that ends too early, an unknown kind of record
      ...[rest.length - 1, 4, 0, 6].map((at) => {
        const altered = Buffer.from(rest);
        altered[at] = (altered[at] as number) ^ 2;
        return Buffer.concat([header, altered]);
      }),
    ])
      await expect(read(sealed(content))).rejects.toMatchObject({ code: "ERS-606" });
  });

  test("of a newer format is told from what is no carrier file", async () => {
    await expect(read(Buffer.from(`${MAGIC}2\nwhatever`))).rejects.toMatchObject({ code: "ERS-605" });
    for (const text of [
      "-- SYNCID 17\n",
      "erserver carried 1\n",
      `${MAGIC}0\n`,
      `${MAGIC}one\n`,
      `${MAGIC}12345678`,
    ])
      await expect(read(Buffer.from(text)), text).rejects.toMatchObject({ code: "ERS-604" });
    await expect(read(gzipSync("x"))).rejects.toMatchObject({ code: "ERS-604" });
    await expect(read(Buffer.alloc(0))).rejects.toMatchObject({ code: "ERS-604", message: /empty/ });
  });

  test("that is encrypted is read by its identity alone, and no secret is in an error (S18, T16)", async () => {
    const file = await write(FEW, recipient);
    expect(file.includes("O'Neill")).toBe(false);
    await expect(read(file)).rejects.toMatchObject({ code: "ERS-607", message: /no identity/ });
    const other = await generateIdentity();
    await expect(read(file, other)).rejects.toMatchObject({ code: "ERS-607", message: /another key/ });
    const mistyped = `${identity.slice(0, -1)}!`;
    const error = await read(file, mistyped).catch((thrown: unknown) => thrown as Error);
    expect(error).toMatchObject({ code: "ERS-607" });
    expect((error as Error).cause).toBeUndefined();
    expect(inspect(error)).not.toContain(identity.slice(20, 40));
    for (const none of ["", "# a comment\n", "age1xyz"])
      await expect(read(file, none)).rejects.toMatchObject({ code: "ERS-607" });
    const keyFile = `# created: 2026-11-26\n# public key: ${recipient}\n${other}\n${identity}\n`;
    expect((await read(file, keyFile)).changes).toEqual(FEW.map(said));
    // Nothing to decrypt: the identity is of no use, and no harm.
    expect((await read(await write(FEW), identity)).changes).toEqual(FEW.map(said));
    await expect(encrypterFor(identity)).rejects.toMatchObject({ code: "ERS-607" });
  });

  test("whose output stands still fills up soon, and what breaks is told", async () => {
    const options = { header: HEADER, relations: RELATIONS };
    for (const encrypter of [undefined, await encrypterFor(recipient)])
      await fillUp({ ...options, encrypter });

    const full = new Writable({
      write: (_part, _encoding, done) => done(new Error("ENOSPC: no space left")),
    });
    const failing = new CarrierWriter(full, { ...options, encrypter: undefined, signal: never });
    await expect(failing.finish()).rejects.toMatchObject({ code: "ERS-612", message: /no space left/ });
    const broken = Readable.from(
      (function* () {
        yield Buffer.from(MAGIC);
        throw new Error("EIO: i/o error");
      })(),
    );
    await expect(
      readCarrier(broken, { identity: undefined, signal: never }, () =>
        Promise.reject(new Error("no header")),
      ),
    ).rejects.toMatchObject({ code: "ERS-612", message: /EIO/ });
  });
});
