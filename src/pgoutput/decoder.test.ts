import { beforeEach, describe, expect, test } from "vitest";

import type { Change } from "../change/change.ts";
import { PgoutputDecoder } from "./decoder.ts";
import { NO_STREAMS } from "../../test/support/no-streams.ts";

/** Begin of xid 7 whose commit record is at 0/10, on 2000-01-01. */
const BEGIN = "42 0000000000000010 0000000000000000 00000007";
const COMMIT = "43 00 0000000000000010 0000000000000020 0000000000000000";
/** public.t, oid 1, replica identity default: int4 key "a" and text "b". */
const RELATION =
  "52 00000001 7075626c696300 7400 64 0002 01 6100 00000017 ffffffff 00 6200 00000019 ffffffff";
const INSERT = "49 00000001 4e 0002 74 00000001 35 6e";

/** Of xid 7 while it is in progress. */
const START = "53 00000007 01";
const RELATION_OF_7 = RELATION.replace("52", "52 00000007");
const INSERT_OF_7 = INSERT.replace("49", "49 00000007");
const STOP = "45";
const STREAM_COMMIT = "63 00000007 00 0000000000000010 0000000000000020 0000000000000000";
const STREAM_ABORT = "41 00000007 00000007";

describe("PgoutputDecoder", () => {
  let changes: Change[];
  let decoder: PgoutputDecoder;

  beforeEach(() => {
    changes = [];
    decoder = new PgoutputDecoder({
      ...NO_STREAMS,
      begin: () => {},
      change: (change) => changes.push(change),
      commit: () => {},
    });
  });

  function decode(...messages: readonly string[]): void {
    for (const message of messages) {
      const bytes = Buffer.from(message.replaceAll(" ", ""), "hex");
      decoder.decode(bytes, 0, bytes.length);
    }
  }

  test("keeps the relation object when the stream describes the table again without a difference", () => {
    decode(BEGIN, RELATION, INSERT, RELATION, INSERT, RELATION.replace("6200", "6300"), INSERT);
    const [first, second, third] = changes.map((change) =>
      change.kind === "truncate" ? undefined : change.relation,
    );
    expect(second).toBe(first);
    expect(third).not.toBe(first);
    expect(third?.columns.map((column) => column.name)).toEqual(["a", "c"]);
  });

  test("what a transaction in progress says of a table holds for others when it has committed", () => {
    const other = RELATION_OF_7.replace("6200", "6300");
    const columns = (): unknown[] =>
      changes.splice(0).map((change) => (change.kind === "truncate" ? [] : change.relation.columns[1]?.name));
    decode(BEGIN, RELATION, COMMIT, START, other, INSERT_OF_7, STOP, BEGIN, INSERT, COMMIT);
    expect(columns()).toEqual(["c", "b"]);
    decode(START.replace("01", "00"), INSERT_OF_7, STOP, STREAM_COMMIT, BEGIN, INSERT, COMMIT);
    expect(columns()).toEqual(["c", "c"]);
    decode(START, RELATION_OF_7, INSERT_OF_7, STOP, STREAM_ABORT, BEGIN, INSERT, COMMIT);
    expect(columns()).toEqual(["b", "c"]);
  });

  test("with replica identity full every column is part of the key", () => {
    decode(BEGIN, RELATION.replace(" 64 ", " 66 "), INSERT);
    expect(changes[0]).toMatchObject({
      relation: { replicaIdentity: "full", columns: [{ partOfKey: true }, { partOfKey: true }] },
    });
  });

  test("an empty namespace is pg_catalog", () => {
    decode(BEGIN, RELATION.replace("7075626c696300", "00"), INSERT);
    expect(changes[0]).toMatchObject({ relation: { schema: "pg_catalog" } });
  });

  test.for([
    ["a change outside of a transaction", [RELATION, INSERT]],
    ["a truncate outside of a transaction", [RELATION, "54 00000001 00 00000001"]],
    ["a commit without begin", [COMMIT]],
    ["a begin within a transaction", [BEGIN, BEGIN]],
    ["a commit at another position than announced", [BEGIN, COMMIT.replace("10", "11")]],
    ["a commit that ends where it begins", [BEGIN, COMMIT.replace("20", "10")]],
    ["a commit with flags", [BEGIN, COMMIT.replace("43 00", "43 01")]],
    ["a row with a column too few", [BEGIN, RELATION, "49 00000001 4e 0001 6e"]],
    ["a row with a column of no known kind", [BEGIN, RELATION, "49 00000001 4e 0002 6e 78"]],
    ["a negative length", [BEGIN, RELATION, "49 00000001 4e 0002 74 ffffffff 6e"]],
    ["a length behind the message", [BEGIN, RELATION, "49 00000001 4e 0002 6e 74 00000002 35"]],
    ["an insert of an old row", [BEGIN, RELATION, "49 00000001 4f 0002 6e 6e"]],
    ["an update without a new row", [BEGIN, RELATION, "55 00000001 4f 0002 6e 6e 4b 0002 6e 6e"]],
    ["a delete of a new row", [BEGIN, RELATION, "44 00000001 4e 0002 6e 6e"]],
    ["a truncate of no table", [BEGIN, "54 00000000 00"]],
    ["a truncate with unknown options", [BEGIN, RELATION, "54 00000001 04 00000001"]],
    ["a name that is not UTF-8", [RELATION.replace("7400", "ff00")]],
    ["a replica identity that does not exist", [RELATION.replace(" 64 ", " 78 ")]],
    ["a change between blocks", [START, RELATION_OF_7, STOP, INSERT_OF_7]],
    ["a block in a transaction", [BEGIN, START]],
    ["a block in a block", [START, START]],
    ["a second block that is said to be the first", [START, STOP, START]],
    ["a first block that is said to be another", [START.replace("01", "00")]],
    ["a transaction in a block", [START, BEGIN]],
    ["the end of no block", [STOP]],
    ["a commit of a transaction that is not in progress", [STREAM_COMMIT]],
    ["a commit in a block", [START, STREAM_COMMIT]],
    ["a rollback of a transaction that is not in progress", [STREAM_ABORT]],
    ["an empty message", [""]],
  ] as const)("%s is malformed", ([, messages]) => {
    decode(...messages.slice(0, -1));
    expect(() => decode(messages.at(-1) as string)).toThrow(expect.objectContaining({ code: "ERS-601" }));
    expect(changes).toEqual([]);
  });

  test("says which message is malformed, and where", () => {
    decode(BEGIN, RELATION);
    expect(() => decode("49 00000001 4e 0002 6e 78")).toThrow(
      "pgoutput message 'I' is malformed at byte 9 of 10: a column is of no known kind",
    );
  });

  test("a table that was not described is an error of its own", () => {
    decode(BEGIN);
    for (const message of [INSERT, "54 00000001 00 00000001"]) {
      expect(() => decode(message)).toThrow(expect.objectContaining({ code: "ERS-603", subject: "oid 1" }));
    }
  });
});
