import { describe, test } from "vitest";
import {
  arraysOf,
  expectFaithful,
  since,
  sql,
  TRAVEL,
  travelConfig,
  type ValueType,
} from "./value-history.ts";

const DOCUMENTS: readonly ValueType[] = [
  {
    type: "json",
    key: false,
    values: [
      `{"b": 1,  "a" : 2 , "b":3}`,
      "null",
      `""`,
      "[ ]",
      ` { "a"\n:\t1 } `,
      `"\\u0000 \\ud83d\\ude00 \\\\ \\""`,
      "1e400",
      "-0.0",
      sql("repeat('[', 1000) || repeat(']', 1000)"),
    ],
  },
  {
    type: "jsonb",
    values: [
      `{"b": 1,  "a" : 2 , "b":3}`,
      "null",
      `""`,
      "[]",
      "{}",
      "[[]]",
      "[null, true, -0.0, 1.10, 1e-300, 12345678901234567890.123456789]",
      `{"": {"\\"": "\\\\ \\n \\t \\u0001 é 🐘"}}`,
      sql("'1' || repeat('0', 400)"),
      sql("repeat('[', 200) || repeat(']', 200)"),
    ],
    alike: ["[null, true, 0, 1.1, 1e-300, 12345678901234567890.1234567890]"],
  },
  {
    type: "xml",
    key: false,
    values: [
      "",
      "text &amp; more",
      "<a/>",
      `<?xml version="1.0" standalone="yes"?><a b="'">é<!-- c --><![CDATA[<&]]></a>`,
      `<?xml version="1.0" encoding="UTF-8"?><a>\n</a>`,
      "<a/><b/> tail",
      "<!DOCTYPE a><a/>",
    ],
  },
  {
    type: "tsvector",
    values: [
      "",
      "a:1A,2B,3C,4 b 'it''s':16383",
      "'a b' '\\\\' ','",
      "é:1 東京",
      sql("to_tsvector('simple', repeat('word ', 300))"),
    ],
  },
  { type: "uuid", values: ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"] },
  {
    type: "inet",
    values: [
      "0.0.0.0/0",
      "10.1.2.3",
      "10.1.2.3/8",
      "::",
      "::/0",
      "::ffff:1.2.3.4",
      "2001:db8::1/127",
      "fe80::1",
    ],
  },
  { type: "cidr", values: ["0.0.0.0/0", "10.0.0.0/8", "1.2.3.4/32", "::/0", "2001:db8::/32", "::1/128"] },
  { type: "macaddr", values: ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "08:00:2b:01:02:03"] },
  { type: "macaddr8", values: ["00:00:00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff:ff:ff", "08:00:2b:01:02:03"] },
  { type: "bit(1)", values: ["0", "1"] },
  { type: "bit(9)", values: ["000000000", "111111111", "100000001"] },
  { type: "bit varying", values: ["", "0", "1", "00000000", "000000001", sql("repeat('10', 5000)")] },
  { type: "bit varying(9)", values: ["", "101010101"] },
  ...since(12, {
    type: "jsonpath",
    key: false,
    values: [
      "$",
      `strict $."a b"[0 to last] ? (@.x > 1.50 && @ like_regex "^\\\\d" flag "i")`,
      "lax $.**{1 to 3}.type()",
    ],
  }),
];

/** PostgreSQL cannot read the empty query in binary: such columns always travel as text. */
const QUERIES: readonly ValueType[] = [
  {
    type: "tsquery",
    values: ["", "a & !b | c", "'it''s' <-> b", "a:*AB <3> (b | 'c d')", "!!a", "'\\\\' & '('"],
  },
];

describe("documents, addresses and bits", () => {
  test.for(TRAVEL)("arrive as they are, as %s", async ([travel]) => {
    await expectFaithful(DOCUMENTS, { config: travelConfig(travel) });
  });

  test.for(TRAVEL)("arrive as they are in arrays, as %s", async ([travel]) => {
    await expectFaithful(arraysOf(DOCUMENTS), { config: travelConfig(travel) });
  });

  test("search conditions arrive as they are", async () => {
    await expectFaithful([...QUERIES, ...arraysOf(QUERIES)], {});
  });
});
