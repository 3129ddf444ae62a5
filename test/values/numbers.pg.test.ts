import { describe, expect, test } from "vitest";
import { startReplication } from "../support/pipeline-context.ts";
import {
  arraysOf,
  expectFaithful,
  since,
  sql,
  TRAVEL,
  travelConfig,
  type ValueType,
  valueSince,
} from "./value-history.ts";

const FLOATS = ["NaN", "Infinity", "-Infinity", "0", "1", "-1.5", "0.1", "0.3333333333333333"];

const NUMBERS: readonly ValueType[] = [
  { type: "bool", values: ["true", "false"] },
  { type: "smallint", values: ["-32768", "-1", "0", "32767"] },
  { type: "int", values: ["-2147483648", "-1", "0", "2147483647"] },
  { type: "bigint", values: ["-9223372036854775808", "-1", "0", "9223372036854775807"] },
  {
    type: "real",
    values: [...FLOATS, "1.17549435e-38", "1.4e-45", "-1.4e-45", "3.4028235e38", "-3.4028235e38"],
    alike: ["-0"],
  },
  {
    type: "double precision",
    values: [
      ...FLOATS,
      "2.2250738585072014e-308",
      "4.9e-324",
      "-4.9e-324",
      "1.7976931348623157e308",
      "0.30000000000000004",
      "9007199254740993",
    ],
    alike: ["-0"],
  },
  {
    type: "numeric",
    values: [
      "NaN",
      "0",
      "1",
      "-1",
      "1e-400",
      "-1e-400",
      "1e400",
      "0.1",
      "123456789012345678901234567890.123456789",
      "9999",
      "10000",
      "0.0001",
      "0.00001",
      ...valueSince(14, "Infinity", "-Infinity"),
    ],
    alike: ["1.0", "1.00", "1.000000000000000000000", "0.00", "0.10"],
  },
  {
    type: "numeric(30,6)",
    values: ["0", "999999999999999999999999.999999", "-0.000001", "NaN"],
    alike: ["0.000000"],
  },
  { type: "money", values: ["-92233720368547758.08", "92233720368547758.07", "0", "-0.01", "1234.56"] },
  { type: "oid", values: ["0", "2147483648", "4294967295"] },
];

const MORE: readonly ValueType[] = [
  {
    type: "numeric",
    key: false,
    values: [
      sql("repeat('9', 131072)"),
      sql("'0.' || repeat('1', 16383)"),
      sql("'-' || repeat('12345', 20000) || '.5'"),
    ],
  },
  ...since(
    15,
    { type: "numeric(3,-2)", values: ["12300", "-99900", "0"] },
    { type: "numeric(2,5)", values: ["0.00012", "0.00099"] },
  ),
];

describe("numbers", () => {
  test.for(TRAVEL)("arrive as they are, as %s (S8)", async ([travel]) => {
    await expectFaithful([...NUMBERS, ...MORE], { config: travelConfig(travel) });
  });

  test.for(TRAVEL)("arrive as they are in arrays, as %s", async ([travel]) => {
    await expectFaithful(arraysOf(NUMBERS), { config: travelConfig(travel) });
  });

  test("a NaN of another bit pattern, copied as bytes, is found by its text", async () => {
    await using replication = await startReplication({
      // A column of a user-defined type makes the stream text; the copy of the other table stays binary.
      schema: `create type pair as (a int, b int); create table other (id int primary key, p pair);
        create table whole (id int, f float8, r float4, d float8[]); alter table whole replica identity full`,
      rows: "insert into whole select i, 'Infinity'::float8 - 'Infinity'::float8, 'Infinity'::float4 - 'Infinity'::float4, null from generate_series(1, 4) i",
    });
    const { source, target } = replication;
    await replication.caughtUp();
    await source.query(
      "update whole set id = 10 where id = 1; delete from whole where id = 2; update whole set f = 1 where id = 3",
    );
    await replication.caughtUp();
    const rows = "select id, f, r from whole order by id, f";
    expect(await target.query(rows)).toEqual(await source.query(rows));
    expect(await target.query("select conflicts from erserver.progress")).toEqual([{ conflicts: "0" }]);
  });
});
