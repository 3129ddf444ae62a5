import { expect, test } from "vitest";
import { parsePgbench } from "./pgbench.ts";

const REPORT = `transaction type: <builtin: TPC-B (sort of)>
scaling factor: 20
number of transactions actually processed: 90821
number of failed transactions: 0 (0.000%)
latency average = 0.881 ms
tps = 4541.072143 (without initial connection time)
`;

test("the report of pgbench gives the transactions and their rate", () => {
  expect(parsePgbench(REPORT)).toEqual({ transactions: 90_821, tps: 4541.072143 });
});

test("a report with a number of transactions asked for gives those processed", () => {
  const report = REPORT.replace("processed: 90821", "processed: 50000/50000");
  expect(parsePgbench(report).transactions).toBe(50_000);
});

test("anything else is no report", () => {
  expect(() => parsePgbench("pgbench: error: connection failed")).toThrow("not a report");
});
