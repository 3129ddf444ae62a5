import { expect, test } from "vitest";
import { parseTps } from "./pgbench.ts";

test("the report of pgbench gives the rate of transactions", () => {
  const report = `transaction type: <builtin: TPC-B (sort of)>
number of transactions actually processed: 90821
latency average = 0.881 ms
initial connection time = 4.311 ms
tps = 4541.072143 (without initial connection time)
`;
  expect(parseTps(report)).toBe(4541.072143);
});

test("of the two rates that versions before 14 give it is the one without the time to connect", () => {
  const report = `tps = 4400.1 (including connections establishing)
tps = 4541.2 (excluding connections establishing)
`;
  expect(parseTps(report)).toBe(4541.2);
});

test("anything else is no report", () => {
  expect(() => parseTps("pgbench: error: connection failed")).toThrow("not a report");
});
