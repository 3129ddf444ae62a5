import { describe, test } from "vitest";
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

  test.for(TRAVEL)("of 8 MB arrive, as %s (T8)", async ([travel]) => {
    const large: readonly ValueType[] = [
      {
        type: "text",
        key: false,
        values: [sql("repeat('0123456789abcde' || chr(10), 524288)"), sql("repeat('\\', 1000000)")],
      },
      { type: "bytea", key: false, values: [sql("decode(repeat('00ff5c0a', 2097152), 'hex')")] },
      { type: "jsonb", key: false, values: [sql(`('[' || repeat('"x",', 500000) || '1]')`)] },
    ];
    await expectFaithful(large, { config: travelConfig(travel) });
  });
});
