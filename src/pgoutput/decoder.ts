import { RowChange, TruncateChange } from "../change/change.ts";
import { type Lsn, ZERO_LSN } from "../change/lsn.ts";
import type { Relation } from "../change/relation.ts";
import type { ChangeSink } from "../change/sink.ts";
import type { Transaction } from "../change/transaction.ts";
import { COLUMN_BINARY, COLUMN_NULL, COLUMN_TEXT, COLUMN_UNCHANGED } from "../change/tuple.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { MessageReader } from "./message-reader.ts";
import { readRelation, sameRelation } from "./relations.ts";

const BEGIN = 0x42;
const COMMIT = 0x43;
const DELETE = 0x44;
const INSERT = 0x49;
const LOGICAL_MESSAGE = 0x4d;
const ORIGIN = 0x4f;
const RELATION = 0x52;
const STREAM_ABORT = 0x41;
const STREAM_COMMIT = 0x63;
const STREAM_START = 0x53;
const STREAM_STOP = 0x45;
const TRUNCATE = 0x54;
const TYPE = 0x59;
const UPDATE = 0x55;

/** What introduces a row image. */
const NEW_TUPLE = 0x4e;
const KEY_TUPLE = 0x4b;
const OLD_TUPLE = 0x4f;

/** What a decoder tells. */
export type DecoderSink = Pick<
  ChangeSink,
  "begin" | "change" | "commit" | "streamStart" | "streamStop" | "streamCommit" | "streamAbort"
>;

const TRUNCATE_CASCADE = 1;
const TRUNCATE_RESTART_IDENTITY = 2;

/** What the stream has said of tables, by their oid. */
type Relations = Map<number, Relation>;

/**
 * Turns pgoutput messages of protocol versions 1 and 2 into changes. Row images are checked in one walk (number and kinds of
 * columns, every length, the end of the message) and stay where they are, so that whoever reads them later needs
 * no checks; the sink hears of a change only after that.
 *
 * In version 2 a large transaction is sent in blocks while it is in progress. Each block is of one transaction, which describes its
 * tables for itself: others learn of it only when it has committed.
 *
 * Throws ERS-601 for bytes that are no valid message at this point of the stream and ERS-603 for a change of a
 * relation that was not described. The decoder is of no use afterwards: start again from an acknowledged position.
 * https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
 */
export class PgoutputDecoder {
  readonly #sink: DecoderSink;
  readonly #relations: Relations = new Map();
  /** As transactions in progress describe them, by xid. */
  readonly #inProgress = new Map<number, Relations>();
  /** Of the transaction whose block is open; undefined outside of blocks. */
  #block: Relations | undefined;
  readonly #reader = new MessageReader();
  /** The relation of the last row change: neighbours mostly share it. */
  #relation: Relation | undefined;
  #transaction: Transaction | undefined;

  constructor(sink: DecoderSink) {
    this.#sink = sink;
  }

  /** True between a begin and its commit, and within a block of a transaction in progress. */
  get inTransaction(): boolean {
    return this.#transaction !== undefined || this.#block !== undefined;
  }

  /** The stream begins anew, between transactions. What it said of the relations still holds. */
  reset(): void {
    this.#transaction = undefined;
    this.#inProgress.clear();
    this.#leaveBlock();
  }

  /** Decodes the message `bytes[start, end)`. The memory must not be changed as long as its changes are in use. */
  decode(bytes: Buffer, start: number, end: number): void {
    const reader = this.#reader;
    reader.reset(bytes, start, end);
    const type = reader.uint8();
    switch (type) {
      case INSERT:
        return this.#insert(reader);
      case UPDATE:
        return this.#update(reader);
      case DELETE:
        return this.#delete(reader);
      case BEGIN:
        return this.#begin(reader);
      case COMMIT:
        return this.#commit(reader);
      case RELATION:
        return this.#describe(reader);
      case TRUNCATE:
        return this.#truncate(reader);
      case TYPE:
        this.#skipXid(reader);
        reader.skip(4);
        reader.cstring();
        reader.cstring();
        return reader.finish();
      case ORIGIN:
        reader.skip(8);
        reader.cstring();
        return reader.finish();
      case LOGICAL_MESSAGE:
        this.#skipXid(reader);
        reader.skip(1 + 8);
        reader.cstring();
        reader.skip(reader.length());
        return reader.finish();
      case STREAM_START:
        return this.#streamStart(reader);
      case STREAM_STOP:
        return this.#streamStop(reader);
      case STREAM_COMMIT:
        return this.#streamCommit(reader);
      case STREAM_ABORT:
        return this.#streamAbort(reader);
      default:
        throw reader.malformed("its type is unknown in protocol version 2");
    }
  }

  #begin(reader: MessageReader): void {
    if (this.inTransaction) throw reader.malformed("a transaction is already open");
    const commitLsn = reader.uint64() as Lsn;
    const commitTime = reader.timestamp();
    const xid = reader.uint32();
    reader.finish();
    const transaction: Transaction = { xid, commitLsn, endLsn: ZERO_LSN, commitTime };
    this.#transaction = transaction;
    this.#sink.begin(transaction);
  }

  #commit(reader: MessageReader): void {
    const transaction = this.#transaction;
    if (transaction === undefined) throw reader.malformed("no transaction is open");
    if (reader.uint8() !== 0) throw reader.malformed("its flags are unknown");
    const { commitLsn, endLsn } = readCommit(reader);
    if (commitLsn !== transaction.commitLsn)
      throw reader.malformed("its position is not the one that Begin announced");
    transaction.endLsn = endLsn;
    this.#transaction = undefined;
    this.#sink.commit(transaction);
  }

  #streamStart(reader: MessageReader): void {
    if (this.inTransaction) throw reader.malformed("a transaction is already open");
    const xid = reader.uint32();
    const isFirst = reader.uint8() === 1;
    reader.finish();
    let relations = this.#inProgress.get(xid);
    if (isFirst !== (relations === undefined))
      throw reader.malformed("it is not the first block, or another was");
    if (relations === undefined) {
      relations = new Map();
      this.#inProgress.set(xid, relations);
    }
    this.#block = relations;
    this.#relation = undefined;
    this.#sink.streamStart(xid);
  }

  #streamStop(reader: MessageReader): void {
    reader.finish();
    if (this.#block === undefined) throw reader.malformed("no block is open");
    this.#leaveBlock();
    this.#sink.streamStop();
  }

  #streamCommit(reader: MessageReader): void {
    if (this.inTransaction) throw reader.malformed("a transaction is still open");
    const xid = reader.uint32();
    const relations = this.#inProgress.get(xid);
    if (relations === undefined) throw reader.malformed(`transaction ${xid} is not in progress`);
    if (reader.uint8() !== 0) throw reader.malformed("its flags are unknown");
    const committed = readCommit(reader);
    // The source does not describe them again.
    for (const [id, relation] of relations) this.#relations.set(id, relation);
    this.#inProgress.delete(xid);
    this.#relation = undefined;
    this.#sink.streamCommit({ xid, ...committed });
  }

  /** One of a subtransaction names that behind the transaction. */
  #streamAbort(reader: MessageReader): void {
    if (this.inTransaction) throw reader.malformed("a transaction is still open");
    const xid = reader.uint32();
    const subxid = reader.uint32();
    reader.finish();
    if (!this.#inProgress.has(xid)) throw reader.malformed(`transaction ${xid} is not in progress`);
    if (subxid === xid) this.#inProgress.delete(xid);
    this.#sink.streamAbort(xid, subxid);
  }

  #leaveBlock(): void {
    this.#block = undefined;
    this.#relation = undefined;
  }

  /** In a block, messages begin with the (sub)transaction that they are of. */
  #skipXid(reader: MessageReader): void {
    if (this.#block !== undefined) reader.skip(4);
  }

  #insert(reader: MessageReader): void {
    const relation = this.#changed(reader);
    if (reader.uint8() !== NEW_TUPLE) throw reader.malformed("a new row was expected");
    const newStart = reader.at;
    const lacks = this.#tuple(reader, relation);
    reader.finish();
    this.#sink.change(
      new RowChange("insert", relation, reader.bytes, -1, false, newStart, lacks, reader.size),
    );
  }

  #update(reader: MessageReader): void {
    const relation = this.#changed(reader);
    let oldStart = -1;
    let introduction = reader.uint8();
    const oldIsKey = introduction === KEY_TUPLE;
    if (oldIsKey || introduction === OLD_TUPLE) {
      oldStart = reader.at;
      this.#tuple(reader, relation);
      introduction = reader.uint8();
    }
    if (introduction !== NEW_TUPLE) throw reader.malformed("a row was expected");
    const newStart = reader.at;
    const lacks = this.#tuple(reader, relation);
    reader.finish();
    this.#sink.change(
      new RowChange("update", relation, reader.bytes, oldStart, oldIsKey, newStart, lacks, reader.size),
    );
  }

  #delete(reader: MessageReader): void {
    const relation = this.#changed(reader);
    const introduction = reader.uint8();
    const oldIsKey = introduction === KEY_TUPLE;
    if (!oldIsKey && introduction !== OLD_TUPLE) throw reader.malformed("an old row was expected");
    const oldStart = reader.at;
    this.#tuple(reader, relation);
    reader.finish();
    this.#sink.change(
      new RowChange("delete", relation, reader.bytes, oldStart, oldIsKey, -1, false, reader.size),
    );
  }

  #truncate(reader: MessageReader): void {
    this.#requireTransaction(reader);
    this.#skipXid(reader);
    const count = reader.length();
    const options = reader.uint8();
    if (options > (TRUNCATE_CASCADE | TRUNCATE_RESTART_IDENTITY))
      throw reader.malformed("its options are unknown");
    if (count === 0 || count * 4 !== reader.remaining)
      throw reader.malformed("its number of tables is wrong");
    const relations: Relation[] = [];
    for (let i = 0; i < count; i++) relations.push(this.#lookUp(reader.uint32()));
    reader.finish();
    this.#sink.change(
      new TruncateChange(
        relations,
        (options & TRUNCATE_CASCADE) !== 0,
        (options & TRUNCATE_RESTART_IDENTITY) !== 0,
        reader.size,
      ),
    );
  }

  /** Keeps the known object when nothing has changed: plans are cached by its identity. */
  #describe(reader: MessageReader): void {
    this.#skipXid(reader);
    const relation = readRelation(reader);
    const { id } = relation;
    const known = this.#block?.get(id) ?? this.#relations.get(id);
    const same = known !== undefined && sameRelation(known, relation);
    (this.#block ?? this.#relations).set(id, same ? known : relation);
    this.#relation = undefined;
  }

  /** The relation of a row change. */
  #changed(reader: MessageReader): Relation {
    this.#requireTransaction(reader);
    this.#skipXid(reader);
    const id = reader.uint32();
    const last = this.#relation;
    if (last !== undefined && last.id === id) return last;
    const relation = this.#lookUp(id);
    this.#relation = relation;
    return relation;
  }

  #lookUp(id: number): Relation {
    const relation = this.#block?.get(id) ?? this.#relations.get(id);
    if (relation !== undefined) return relation;
    throw new ErserverError("ERS-603", `the stream has not described the table with oid ${id}`, {
      subject: `oid ${id}`,
      remedy:
        "Start the pipeline again: the source then describes every table anew. Report this when it comes back.",
    });
  }

  #requireTransaction(reader: MessageReader): void {
    if (!this.inTransaction) throw reader.malformed("no transaction is open");
  }

  /** Walks one row image; true when it lacks a column. */
  #tuple(reader: MessageReader, relation: Relation): boolean {
    const count = relation.columns.length;
    if (reader.uint16() !== count) {
      throw reader.malformed(
        `the number of columns is not the ${count} of ${relation.schema}.${relation.name}`,
      );
    }
    const { bytes, end } = reader;
    let { at } = reader;
    let lacks = false;
    for (let column = 0; column < count; column++) {
      const kind = at < end ? bytes[at] : 0;
      if (kind === COLUMN_TEXT || kind === COLUMN_BINARY) {
        const value = at + 5;
        const length =
          value <= end
            ? ((bytes[at + 1] as number) << 24) |
              ((bytes[at + 2] as number) << 16) |
              ((bytes[at + 3] as number) << 8) |
              (bytes[at + 4] as number)
            : -1;
        if (length < 0 || length > end - value)
          throw reader.malformedAt(at, "a column's length is impossible");
        at = value + length;
      } else if (kind === COLUMN_NULL) {
        at++;
      } else if (kind === COLUMN_UNCHANGED) {
        lacks = true;
        at++;
      } else {
        throw reader.malformedAt(at, "a column is of no known kind");
      }
    }
    reader.at = at;
    return lacks;
  }
}

/** The positions and the time of Commit and Stream Commit, which end the message. */
function readCommit(reader: MessageReader): Pick<Transaction, "commitLsn" | "endLsn" | "commitTime"> {
  const commitLsn = reader.uint64() as Lsn;
  const endLsn = reader.uint64() as Lsn;
  if (endLsn <= commitLsn) throw reader.malformed("it ends before its commit record");
  const commitTime = reader.timestamp();
  reader.finish();
  return { commitLsn, endLsn, commitTime };
}
