import { describe, expect, test } from "vitest";
import { type Summary, jsonLine, medians, ratioOf, table } from "./report.ts";

const DRAIN: Summary = {
  scenario: "insert-1tx",
  pg: 15,
  rounds: 3,
  scale: 1,
  unit: "rows",
  medians: new Map([
    ["ours", { s: 8, rate: 250_000, startup_s: 0.31, rss_mb: 210 }],
    ["native", { s: 20, rate: 100_000, startup_s: 0.01 }],
  ]),
  ratio: 2.5,
};

describe("the ratio", () => {
  test("is above 1 when erserver needs less time", () => {
    expect(ratioOf({ s: 5 }, { s: 10 })).toBe(2);
  });

  test("is above 1 when erserver's median lag is less", () => {
    expect(ratioOf({ s: 0.001, p50_ms: 1, p99_ms: 9 }, { s: 0.002, p50_ms: 2, p99_ms: 3 })).toBe(2);
  });

  test("is above 1 when the source does more under erserver", () => {
    expect(ratioOf({ tps: 4000 }, { tps: 2000 })).toBe(2);
  });

  test("is absent when one side was not measured", () => {
    expect(ratioOf(undefined, { s: 10 })).toBeUndefined();
  });
});

test("each metric has its own median, and one that some rounds could not tell is of the others", () => {
  const rounds = [
    { s: 1, rate: 30, rss_mb: 100 },
    { s: 2, rate: 20 },
    { s: 9, rate: 10 },
  ];
  expect(medians(rounds)).toEqual({ s: 2, rate: 20, rss_mb: 100 });
});

describe("the JSON line", () => {
  test("begins with the figures of the comparison", () => {
    expect(JSON.parse(jsonLine(DRAIN))).toEqual({
      scenario: "insert-1tx",
      pg: 15,
      rounds: 3,
      ours_s: 8,
      ours_rate: 250_000,
      ours_startup_s: 0.31,
      native_s: 20,
      native_rate: 100_000,
      native_startup_s: 0.01,
      ratio: 2.5,
      rss_mb: 210,
    });
  });

  test("says when sizes were not the full ones", () => {
    expect(JSON.parse(jsonLine({ ...DRAIN, scale: 0.01 }))).toHaveProperty("scale", 0.01);
  });
});

describe("the table", () => {
  test("has a row a scenario in columns of equal width", () => {
    const text = table([DRAIN, { ...DRAIN, scenario: "a-longer-name", scale: 0.5 }]);
    const lines = text.trimEnd().split("\n");
    expect(new Set(lines.map((line) => line.length)).size).toBe(1);
    expect(lines).toHaveLength(4);
    expect(lines[2]).toMatch(
      /^\| insert-1tx +\| 15 +\| 8\.00 s +\| 20\.00 s +\| 2\.50 +\| 250,000 rows\/s +\| 100,000 rows\/s +\| 0\.31 s +\| 210 MB +\|$/,
    );
    expect(lines[3]).toMatch(/^\| a-longer-name x 0\.5 /);
  });

  test("tells lag by its percentiles and overhead by throughput", () => {
    const lag = {
      ...DRAIN,
      medians: new Map([["ours", { s: 0.0014, p50_ms: 1.4, p99_ms: 4 }]] as const),
      ratio: undefined,
    };
    const overhead = {
      ...DRAIN,
      medians: new Map([
        ["none", { tps: 4541 }],
        ["ours", { tps: 3800 }],
        ["native", { tps: 3757 }],
      ] as const),
    };
    const soak = {
      ...lag,
      medians: new Map([
        ["ours", { p50_ms: 1.4, p99_ms: 4, early_p50_ms: 1.3, early_p99_ms: 5, early_rss_mb: 90 }],
      ] as const),
    };
    const text = table([lag, overhead, soak]);
    expect(text).toMatch(/\| p50 1\.4 ms, p99 4\.0 ms +\| – +\| – +\|/);
    expect(text).toMatch(/\| p50 1\.4 ms, p99 4\.0 ms; before: p50 1\.3 ms, p99 5\.0 ms, 90 MB +\|/);
    expect(text).toMatch(/\| 3,800 tps +\| 3,757 tps \(neither: 4,541 tps\) +\|/);
  });
});
