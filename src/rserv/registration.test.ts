import { describe, expect, test } from "vitest";
import { columnsText, compareRegistrations, narrow, type Registration, widen } from "./registration.ts";

const table = (name: string, columns: readonly string[] | null = null): Registration => ({
  schema: "public",
  name,
  columns,
});

describe("a registration", () => {
  test("S31: gets more columns with each call, and ends up with all of them", () => {
    const first = widen(undefined, "lastname");
    expect(first).toEqual({ columns: ["lastname"], how: "added" });
    const second = widen(first, "firstname");
    expect(second).toEqual({ columns: ["lastname", "firstname"], how: "widened" });
    expect(widen(second, undefined)).toEqual({ columns: null, how: "widened" });
  });

  test("S32: is the same after the same call", () => {
    expect(widen(table("t", ["a"]), "a")).toEqual({ columns: ["a"], how: "already" });
    expect(widen(table("t"), undefined)).toEqual({ columns: null, how: "already" });
  });

  test("of all columns is not made one of some by naming one", () => {
    expect(widen(table("t"), "a")).toEqual({ columns: null, how: "already" });
    expect(() => narrow(table("t"), "a")).toThrow(/registered with all columns/);
  });

  test("goes with its last column", () => {
    expect(narrow(table("t", ["a", "b"]), "a")).toEqual(["b"]);
    expect(narrow(table("t", ["b"]), "b")).toBeUndefined();
    expect(narrow(table("t", ["a", "b"]), undefined)).toBeUndefined();
  });
});

describe("S36: registrations of master and slave", () => {
  test("are compared whatever the order of the columns; the master may have more tables", () => {
    const slave = [table("customer", ["b", "a"])];
    const compared = compareRegistrations([table("book"), table("customer", ["a", "b"])], slave);
    expect(compared).toEqual({ both: slave, masterOnly: [table("book")] });
  });

  test.for([
    ["another column", [table("t", ["lastname"])], [table("t", ["firstname"])], /firstname.*lastname/],
    ["a column here, the table there", [table("t")], [table("t", ["a"])], /column a, on the master with all/],
    ["a table on the slave alone", [], [table("t")], /and not on the master/],
  ] as const)("that differ are refused: %s", ([, master, slave, message]) => {
    expect(() => compareRegistrations(master, slave)).toThrow(message);
  });

  test("are said in words", () => {
    expect([null, ["a"], ["b", "a"]].map((columns) => columnsText({ columns }))).toEqual([
      "all columns",
      "column a",
      "columns a, b",
    ]);
  });
});
