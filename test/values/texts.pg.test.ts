import { describe, expect, test } from "vitest";
import { startReplication } from "../support/pipeline-context.ts";
import { arraysOf, expectFaithful, sql, TRAVEL, travelConfig, type ValueType } from "./value-history.ts";

const ALL_BYTES =
  "(select decode(string_agg(lpad(to_hex(b), 2, '0'), '' order by b), 'hex') from generate_series(0, 255) b)";

const HARD = [
  "",
  " ",
  "'",
  "''",
  '"',
  '""',
  "\\",
  "\\\\",
  "\\N",
  "\\.",
  "NULL",
  "\t",
  "\n",
  "\r\n",
  "a\tb\nc\rd\be\ff\vg",
  "{}",
  '{"a,b"}',
  "(,)",
  "$1",
  "%s",
  "\u0001\u007f",
  "é",
  "e\u0301",
  "東京 🐘 \u{10ffff}",
  "\ufeff",
  "\u202e",
  "trailing ",
  "trailing",
];

const TEXTS: readonly ValueType[] = [
  { type: "text", values: [...HARD, sql("repeat('x', 8000)"), sql("repeat('é', 4000) || '1'")] },
  { type: "varchar", values: HARD },
  { type: "varchar(30)", values: HARD },
  // Blanks at the end do not count.
  { type: "char(5)", values: ["", "a", "a b", "abcde", "\\N", "é'\"\t\n"] },
  { type: "bpchar", values: ["", "a", "abcdef"], alike: ["a ", "a  "] },
  { type: `"char"`, values: ["", "a", "\\", "'"] },
  { type: "name", values: ["", "a b", 'A"b', sql("repeat('é', 31)"), "select"] },
  {
    type: "bytea",
    values: ["", sql("decode(repeat('00', 3), 'hex')"), sql(ALL_BYTES), "\\\\", "\\x5c27220a"],
  },
];

describe("texts", () => {
  test.for(TRAVEL)("arrive as they are, as %s", async ([travel]) => {
    await expectFaithful(TEXTS, { config: travelConfig(travel) });
  });

  test.for(TRAVEL)("arrive as they are in arrays, as %s", async ([travel]) => {
    await expectFaithful(arraysOf(TEXTS), { config: travelConfig(travel) });
  });

  test.for(TRAVEL)("of 8 MB arrive, and find their rows, as %s (T8)", async ([travel]) => {
    const long = (start: string): string =>
      `'${start}' || repeat('0123456789abcd' || chr(10) || '\\', 524288)`;
    const rows = (start: string): string =>
      `insert into keyed values ('${start}', ${long(start)}, '\\x'); insert into whole values (${long(start)}, decode(repeat('00ff5c0a', 500000), 'hex'))`;
    await using replication = await startReplication({
      schema: `create table keyed (k text primary key, v text, b bytea);
        create table whole (v text, b bytea); alter table whole replica identity full`,
      rows: rows("copied"),
      config: travelConfig(travel),
    });
    const { source, target } = replication;
    await source.query(rows("streamed"));
    await source.query("update keyed set b = '\\x00'; update whole set b = null where v like 'copied%'");
    await replication.expectEqual();
    await source.query("update keyed set k = k || '.'");
    await source.query(
      "update keyed set v = '' where k = 'copied.'; delete from whole where v like 'streamed%'",
    );
    await replication.expectEqual();
    expect(await target.query("select conflicts from erserver.progress")).toEqual([{ conflicts: "0" }]);
  });
});
