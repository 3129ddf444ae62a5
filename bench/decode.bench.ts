import { Bench } from "tinybench";

import type { Change } from "../src/change/change.ts";
import { COLUMN_TEXT, TupleReader } from "../src/change/tuple.ts";
import { PgoutputDecoder } from "../src/pgoutput/decoder.ts";
import { FrameReader } from "../src/wire/frames.ts";
import { FrameWriter } from "../src/wire/writer.ts";
import { NO_STREAMS } from "../test/support/no-streams.ts";

/** Transactions of pgbench's TPC-B: three updates and an insert, as pgoutput sends them in text. */
const TRANSACTIONS = 20_000;
const ROWS = TRANSACTIONS * 4;
const CHUNK = 64 * 1024;
/** `w`, start and end position, time: XLogData. */
const XLOG_HEADER = 25;

const COPY_DATA = 0x64;
const INT4 = 23;
const CHARACTER = 1042;
const TIMESTAMP = 1114;

interface Table {
  readonly id: number;
  readonly name: string;
  readonly columns: readonly (readonly [name: string, typeOid: number, partOfKey: boolean])[];
}

const accounts: Table = {
  id: 16401,
  name: "pgbench_accounts",
  columns: [
    ["aid", INT4, true],
    ["bid", INT4, false],
    ["abalance", INT4, false],
    ["filler", CHARACTER, false],
  ],
};
const tellers: Table = {
  id: 16402,
  name: "pgbench_tellers",
  columns: [
    ["tid", INT4, true],
    ["bid", INT4, false],
    ["tbalance", INT4, false],
    ["filler", CHARACTER, false],
  ],
};
const branches: Table = {
  id: 16403,
  name: "pgbench_branches",
  columns: [
    ["bid", INT4, true],
    ["bbalance", INT4, false],
    ["filler", CHARACTER, false],
  ],
};
const history: Table = {
  id: 16404,
  name: "pgbench_history",
  columns: [
    ["tid", INT4, false],
    ["bid", INT4, false],
    ["aid", INT4, false],
    ["delta", INT4, false],
    ["mtime", TIMESTAMP, false],
    ["filler", CHARACTER, false],
  ],
};

/** The stream as a socket gives it: CopyData frames of XLogData, cut into chunks without regard to frames. */
function tpcb(): Buffer[] {
  const writer = new FrameWriter();
  const message = (type: string, body: () => void): void => {
    writer.begin(COPY_DATA);
    writer.text("w");
    for (let i = 0; i < 3; i++) writer.int64(0n);
    writer.text(type);
    body();
    writer.end();
  };
  const tuple = (values: readonly (string | null)[]): void => {
    writer.text("N");
    writer.int16(values.length);
    for (const value of values) {
      writer.text(value === null ? "n" : "t");
      if (value === null) continue;
      writer.int32(value.length);
      writer.text(value);
    }
  };
  const row = (type: string, table: Table, values: readonly (string | null)[]): void =>
    message(type, () => {
      writer.int32(table.id);
      tuple(values);
    });
  const relation = ({ id, name, columns }: Table): void =>
    message("R", () => {
      writer.int32(id);
      writer.cstring("public");
      writer.cstring(name);
      writer.text("d");
      writer.int16(columns.length);
      for (const [column, typeOid, partOfKey] of columns) {
        writer.int8(partOfKey ? 1 : 0);
        writer.cstring(column);
        writer.int32(typeOid);
        writer.int32(-1);
      }
    });

  const filler = " ".repeat(84);
  for (let i = 0; i < TRANSACTIONS; i++) {
    const lsn = BigInt(0x1000000 + i * 1000);
    message("B", () => {
      writer.int64(lsn);
      writer.int64(700_000_000_000_000n);
      writer.int32(i + 700);
    });
    if (i === 0) for (const table of [accounts, tellers, branches, history]) relation(table);
    const aid = String(((i * 7919) % 1_000_000) + 1);
    const delta = String(((i * 31) % 10_000) - 5000);
    row("U", accounts, [aid, "1", delta, filler]);
    row("U", tellers, [String((i % 10) + 1), "1", delta, null]);
    row("U", branches, ["1", delta, null]);
    row("I", history, ["1", "1", aid, delta, "2026-11-23 09:00:00.123456", null]);
    message("C", () => {
      writer.int8(0);
      writer.int64(lsn);
      writer.int64(lsn + 48n);
      writer.int64(700_000_000_000_000n);
    });
  }
  const bytes = writer.take();
  const chunks: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += CHUNK) chunks.push(Buffer.from(bytes.subarray(at, at + CHUNK)));
  return chunks;
}

const chunks = tpcb();
/** The same messages, each with its place, without what is around them. */
const messages: { readonly bytes: Buffer; readonly start: number; readonly end: number }[] = [];
const frames = new FrameReader();
for (const chunk of chunks) {
  frames.push(chunk);
  while (frames.next()) {
    messages.push({ bytes: frames.bytes, start: frames.start + XLOG_HEADER, end: frames.end });
  }
}

/** Holds the changes of one transaction, as the memory transport does. */
function collect(use: (changes: readonly Change[]) => void = () => {}): PgoutputDecoder {
  let changes: Change[] = [];
  return new PgoutputDecoder({
    ...NO_STREAMS,
    begin: () => {
      changes = [];
    },
    change: (change) => changes.push(change),
    commit: () => use(changes),
  });
}

/** What an encoder does with a change: every value goes from its message into a Bind with its length. */
function copyValues(writer: FrameWriter, reader: TupleReader): (changes: readonly Change[]) => void {
  return (changes) => {
    for (const change of changes) {
      if (change.kind === "truncate") continue;
      reader.reset(change.bytes, change.newStart);
      for (let i = 0; i < reader.columns; i++) {
        reader.next();
        if (reader.kind === COLUMN_TEXT) {
          writer.int32(reader.length);
          writer.bytes(reader.bytes, reader.start, reader.start + reader.length);
        } else {
          writer.int32(-1);
        }
      }
    }
    if (writer.buffered > CHUNK) writer.take();
  };
}

const bench = new Bench({ time: 2000, warmupTime: 500 });
bench.add("decode", () => {
  const decoder = collect();
  for (const { bytes, start, end } of messages) decoder.decode(bytes, start, end);
});
bench.add("frames and decode", () => {
  const decoder = collect();
  const reader = new FrameReader();
  for (const chunk of chunks) {
    reader.push(chunk);
    while (reader.next()) decoder.decode(reader.bytes, reader.start + XLOG_HEADER, reader.end);
  }
});
bench.add("frames, decode and copy of the values", () => {
  const decoder = collect(copyValues(new FrameWriter(), new TupleReader()));
  const reader = new FrameReader();
  for (const chunk of chunks) {
    reader.push(chunk);
    while (reader.next()) decoder.decode(reader.bytes, reader.start + XLOG_HEADER, reader.end);
  }
});
await bench.run();

for (const task of bench.tasks) {
  const { result } = task;
  if (result.state !== "completed") throw new Error(`${task.name}: ${result.state}`);
  const rows = (ROWS * 1000) / result.latency.p50;
  process.stdout.write(`${task.name}: ${(rows / 1e6).toFixed(2)} M row messages/s\n`);
}
