/** Measures erserver and native logical replication side by side: docs/benchmarks.md says what and how. */
import path from "node:path";
import { BACKLOGS, INSERT, SHAPES, TPCB, TRIGGER_TPCB } from "./backlog.ts";
import { COPY } from "./copy.ts";
import { ErserverFollower } from "./erserver.ts";
import type { Follower } from "./follower.ts";
import { TRIGGER_IDLE } from "./idle.ts";
import { LAG, LAG_1000, TRIGGER_LAG } from "./lag.ts";
import { NativeFollower } from "./native.ts";
import { type BenchOptions, DEFAULTS, UsageError, parseOptions } from "./options.ts";
import { OVERHEAD, TRIGGER_OVERHEAD } from "./overhead.ts";
import { LAG_PEAK, SOAK_RATE } from "./peak.ts";
import { findPgbench } from "./pgbench.ts";
import { type Contender, type Metrics, type Summary, jsonLine, medians, ratioOf, table } from "./report.ts";
import type { Scenario } from "./scenario.ts";
import { type Pair, startPair } from "./servers.ts";
import { Link } from "./wan.ts";

const WAN_DELAY_MS = 50;

/** The same with a long line between one of them and whoever replicates. */
const throughWan = (scenario: Scenario, side: "source" | "target"): Scenario => ({
  ...scenario,
  name: `wan-${side === "target" ? "target-" : ""}${scenario.name}`,
  about: `${scenario.about}, the ${side} ${WAN_DELAY_MS} ms away`,
  far: { side, delayMs: WAN_DELAY_MS },
});

const SCENARIOS: readonly Scenario[] = [
  ...BACKLOGS,
  ...SHAPES,
  COPY,
  LAG,
  OVERHEAD,
  ...(["source", "target"] as const).flatMap((side) =>
    [TPCB, INSERT, LAG, LAG_1000].map((scenario) => throughWan(scenario, side)),
  ),
  LAG_PEAK,
  SOAK_RATE,
  TRIGGER_OVERHEAD,
  TRIGGER_TPCB,
  TRIGGER_LAG,
  TRIGGER_IDLE,
];

const HELP = `npm run bench -- <scenario>… [options]

scenarios
${SCENARIOS.map(({ name, about }) => `  ${name.padEnd(26)} ${about}`).join("\n")}
  all                        each of them

options
  --rounds N      runs of each side, whose median is told (default ${DEFAULTS.rounds})
  --pg MAJOR      PostgreSQL of both servers (default ${DEFAULTS.major})
  --json          one JSON line a scenario and nothing else on standard output
  --scale X       factor of all sizes and times; 0.01 for a quick look (default ${DEFAULTS.scale})
  --only SIDE     measure ours or native alone
  --cli FILE      the erserver to measure (default ${DEFAULTS.cli})
  --yaml TEXT     more of its configuration, such as 'apply: { workers: 4 }'
`;

async function main(): Promise<void> {
  const byName = new Map(SCENARIOS.map((scenario) => [scenario.name, scenario]));
  const options = parseOptions(process.argv.slice(2), [...byName.keys()]);
  if (options === undefined) {
    process.stdout.write(HELP);
    return;
  }
  findPgbench();
  const summaries: Summary[] = [];
  for (const name of options.scenarios) {
    const summary = await measure(byName.get(name) as Scenario, options);
    summaries.push(summary);
    process.stdout.write(`${jsonLine(summary)}\n`);
  }
  if (!options.json) process.stdout.write(`\n${table(summaries)}`);
}

async function measure(scenario: Scenario, options: BenchOptions): Promise<Summary> {
  const { rounds, only, scale, major } = options;
  const contenders = scenario.contenders.filter((contender) => only === undefined || contender === only);
  const runs = new Map<Contender, Metrics[]>(contenders.map((contender) => [contender, []]));
  for (let round = 1; round <= rounds; round++) {
    // What the machine does meanwhile, and what it has cached, does not always meet the same side.
    for (const contender of round % 2 === 1 ? contenders : contenders.toReversed()) {
      const metrics = await runOnce(scenario, contender, options);
      runs.get(contender)?.push(metrics);
      const figures = Object.entries(medians([metrics])).map(([name, value]) => `${name} ${value}`);
      process.stderr.write(`${scenario.name} ${round}/${rounds} ${contender}: ${figures.join(", ")}\n`);
    }
  }
  const byContender = new Map([...runs].map(([contender, list]) => [contender, medians(list)]));
  const ratio = ratioOf(byContender.get("ours"), byContender.get("native") ?? byContender.get("none"));
  const { name, unit } = scenario;
  return { scenario: name, pg: major, rounds, scale, unit, medians: byContender, ratio };
}

async function runOnce(scenario: Scenario, contender: Contender, options: BenchOptions): Promise<Metrics> {
  await using pair = await startPair(options.major, scenario.settings);
  const ports = { source: pair.source.cluster.port, target: pair.target.cluster.port };
  // A subscriber is beside the target: its line is the one to the source.
  const side = contender === "native" ? "source" : scenario.far?.side;
  using link =
    side === undefined || scenario.far === undefined
      ? undefined
      : await Link.start(ports[side], scenario.far.delayMs);
  if (side !== undefined && link !== undefined) ports[side] = link.port;
  const yaml = [scenario.yaml ?? "", options.yaml].join("\n");
  await using follower = await createFollower(contender, { pair, ports }, { ...options, yaml });
  return await scenario.run({
    pair,
    follower,
    size: (full) => Math.max(1, Math.round(full * options.scale)),
  });
}

async function createFollower(
  contender: Contender,
  { pair, ports }: { pair: Pair; ports: { source: number; target: number } },
  { cli, yaml }: BenchOptions,
): Promise<Follower | undefined> {
  if (contender === "none") return undefined;
  return contender === "native"
    ? new NativeFollower(pair, ports.source)
    : ErserverFollower.create(pair, { cli: path.resolve(cli), ports, yaml });
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  // By way of "exit", where servers and replicators are ended.
  process.on(signal, () => process.exit(1));
}

try {
  await main();
} catch (error) {
  const isUsage = error instanceof UsageError;
  process.stderr.write(`${isUsage ? error.message : (error as Error).stack}\n`);
  process.exitCode = isUsage ? 2 : 1;
}
