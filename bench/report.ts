import { median } from "./statistics.ts";

/** erserver, native logical replication, and the source left alone. */
export type Contender = "ours" | "native" | "none";

/**
 * What one run gave. `s`: seconds until done (of lag, the median); `rate`: work per second of it; `startup_s`: seconds of it until the replicator had its first
 * session on the target; `p50_ms`, `p99_ms`: lag; `early_…`: the same of the first half of a long run; `tps`: the source's transactions per second; `core_share`: of a processor core, what the source spends on an idle target; `look_ms`: of that, for each look; `log_bytes`: what triggers record for each change; `rss_mb`: the replicator's peak memory.
 */
export type Metrics = { readonly [metric in Metric]?: number | undefined };
export type Metric =
  | "s"
  | "rate"
  | "startup_s"
  | "p50_ms"
  | "p99_ms"
  | "early_p50_ms"
  | "early_p99_ms"
  | "early_rss_mb"
  | "tps"
  | "core_share"
  | "look_ms"
  | "log_bytes"
  | "rss_mb";

/** The result of a scenario: the median of each metric over the rounds. */
export interface Summary {
  readonly scenario: string;
  /** Major of both servers. */
  readonly pg: number;
  readonly rounds: number;
  readonly scale: number;
  /** Of what `rate` counts: transactions or rows. */
  readonly unit: string;
  readonly medians: ReadonlyMap<Contender, Metrics>;
  /** Above 1: erserver is better. Undefined when one of the two was not measured. */
  readonly ratio: number | undefined;
}

const DIGITS: Record<Metric, number> = {
  s: 4,
  rate: 0,
  startup_s: 3,
  p50_ms: 2,
  p99_ms: 2,
  early_p50_ms: 2,
  early_p99_ms: 2,
  early_rss_mb: 0,
  tps: 0,
  core_share: 4,
  look_ms: 3,
  log_bytes: 0,
  rss_mb: 0,
};

const HEADER = [
  "scenario",
  "PostgreSQL",
  "erserver",
  "native",
  "ratio",
  "erserver's rate",
  "native's rate",
  "start-up",
  "peak memory",
];

/** The median of each metric of one contender's rounds. */
export function medians(rounds: readonly Metrics[]): Metrics {
  const names = Object.keys(rounds[0] ?? {}) as Metric[];
  return Object.fromEntries(
    names.map((name) => {
      const values = rounds.map((metrics) => metrics[name]).filter((value) => value !== undefined);
      return [name, round(median(values), DIGITS[name])];
    }),
  );
}

/** How many times better `ours` is: less time, less lag at the median, or more transactions of the source. */
export function ratioOf(ours: Metrics | undefined, native: Metrics | undefined): number | undefined {
  const [a, b] = [headline(ours), headline(native)];
  if (a === undefined || b === undefined) return undefined;
  return round(a.more ? a.value / b.value : b.value / a.value, 2);
}

function headline(metrics: Metrics | undefined): { value: number; more: boolean } | undefined {
  if (metrics?.tps !== undefined) return { value: metrics.tps, more: true };
  const value = metrics?.p50_ms ?? metrics?.s;
  return value === undefined ? undefined : { value, more: false };
}

/** One line for programs: `{"scenario","pg","rounds","ours_s","native_s","ratio","rss_mb", …}`. */
export function jsonLine({ scenario, pg, rounds, scale, medians: byContender, ratio }: Summary): string {
  const figures = [...byContender].flatMap(([contender, metrics]) =>
    Object.entries(metrics)
      .filter(([metric]) => metric !== "rss_mb")
      .map(([metric, value]) => [`${contender}_${metric}`, value]),
  );
  return JSON.stringify({
    scenario,
    pg,
    rounds,
    ...(scale === 1 ? {} : { scale }),
    ...Object.fromEntries(figures),
    ratio,
    rss_mb: byContender.get("ours")?.rss_mb,
  });
}

/** A Markdown table, aligned so that it also reads in a terminal. */
export function table(summaries: readonly Summary[]): string {
  const rows = [HEADER, ...summaries.map(cells)];
  const widths = HEADER.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const line = (row: readonly string[]): string =>
    `| ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(" | ")} |\n`;
  const rule = `|${widths.map((width) => "-".repeat(width + 2)).join("|")}|\n`;
  return rows.map((row, index) => line(row) + (index === 0 ? rule : "")).join("");
}

function cells({ scenario, pg, scale, unit, medians: byContender, ratio }: Summary): string[] {
  const [ours, native, none] = [byContender.get("ours"), byContender.get("native"), byContender.get("none")];
  const rate = (metrics: Metrics | undefined): string => optional(metrics?.rate, grouped, ` ${unit}/s`);
  return [
    scale === 1 ? scenario : `${scenario} x ${scale}`,
    String(pg),
    figure(ours),
    figure(native) + (none === undefined ? "" : ` (neither: ${figure(none)})`),
    optional(ratio, (value) => value.toFixed(2), ""),
    rate(ours),
    rate(native),
    optional(ours?.startup_s, (value) => value.toFixed(2), " s"),
    optional(ours?.rss_mb, String, " MB"),
  ];
}

function figure(metrics: Metrics | undefined): string {
  if (metrics?.tps !== undefined) return `${grouped(metrics.tps)} tps`;
  if (metrics?.core_share !== undefined)
    return `${(metrics.core_share * 100).toFixed(2)} % of a core, ${metrics.look_ms?.toFixed(2)} ms a look`;
  if (metrics?.early_p50_ms !== undefined) {
    const { early_p50_ms: p50_ms, early_p99_ms: p99_ms, early_rss_mb } = metrics;
    const memory = optional(early_rss_mb, String, " MB");
    return `${lag(metrics)}; before: ${lag({ p50_ms, p99_ms })}, ${memory}`;
  }
  if (metrics?.p50_ms !== undefined) return lag(metrics);
  return optional(metrics?.s, (value) => value.toFixed(2), " s");
}

function lag({ p50_ms, p99_ms }: Pick<Metrics, "p50_ms" | "p99_ms">): string {
  return `p50 ${p50_ms?.toFixed(1)} ms, p99 ${p99_ms?.toFixed(1)} ms`;
}

function optional(value: number | undefined, format: (value: number) => string, unit: string): string {
  return value === undefined ? "–" : format(value) + unit;
}

const grouped = (value: number): string => value.toLocaleString("en-US");

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}
