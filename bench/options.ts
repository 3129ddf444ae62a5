import { parseArgs } from "node:util";

export interface BenchOptions {
  /** Names of scenarios, in the order in which they run. */
  readonly scenarios: readonly string[];
  readonly rounds: number;
  /** Major of both servers. */
  readonly major: number;
  /** JSON lines alone on standard output. */
  readonly json: boolean;
  /** Factor of all row and transaction counts and times. */
  readonly scale: number;
  /** The only side to measure; undefined is all. */
  readonly only: "ours" | "native" | undefined;
  /** The erserver to measure: its main.js. */
  readonly cli: string;
  /** More of its configuration, as YAML. */
  readonly yaml: string;
}

/** The command line is wrong; the message is for whoever wrote it. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

export const DEFAULTS = { rounds: 3, major: 15, scale: 1, cli: "dist/cli/main.js", yaml: "" } as const;

/**
 * Reads the command line; undefined when it asks for help.
 * @param names of the scenarios that there are.
 * @throws UsageError
 */
export function parseOptions(argv: readonly string[], names: readonly string[]): BenchOptions | undefined {
  const { values, positionals } = readArguments(argv);
  if (values.help === true) return undefined;
  const only = values.only;
  if (only !== undefined && only !== "ours" && only !== "native") {
    throw new UsageError(`--only is ours or native, not ${JSON.stringify(only)}`);
  }
  return {
    scenarios: scenariosOf(positionals, names),
    rounds: parseNumber("--rounds", values.rounds, { least: 1, most: 100, whole: true }) ?? DEFAULTS.rounds,
    major: parseNumber("--pg", values.pg, { least: 10, most: 99, whole: true }) ?? DEFAULTS.major,
    json: values.json ?? false,
    scale: parseNumber("--scale", values.scale, { least: 0.0001, most: 100, whole: false }) ?? DEFAULTS.scale,
    only,
    cli: values.cli ?? DEFAULTS.cli,
    yaml: values.yaml ?? DEFAULTS.yaml,
  };
}

function readArguments(argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      allowPositionals: true,
      options: {
        rounds: { type: "string" },
        pg: { type: "string" },
        json: { type: "boolean" },
        scale: { type: "string" },
        only: { type: "string" },
        cli: { type: "string" },
        yaml: { type: "string" },
        help: { type: "boolean", short: "h" },
      },
    });
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error), { cause: error });
  }
}

function scenariosOf(positionals: readonly string[], names: readonly string[]): readonly string[] {
  const list = [...names, "all"].join(", ");
  if (positionals.length === 0) throw new UsageError(`name a scenario: ${list}`);
  const unknown = positionals.find((name) => name !== "all" && !names.includes(name));
  if (unknown !== undefined) {
    throw new UsageError(`no scenario is called ${JSON.stringify(unknown)}; there are ${list}`);
  }
  return positionals.includes("all") ? names : [...new Set(positionals)];
}

function parseNumber(
  option: string,
  text: string | undefined,
  { least, most, whole }: { least: number; most: number; whole: boolean },
): number | undefined {
  if (text === undefined) return undefined;
  const value = text.trim() === "" ? Number.NaN : Number(text);
  if (!(value >= least && value <= most) || (whole && !Number.isInteger(value))) {
    const kind = whole ? "a whole number" : "a number";
    throw new UsageError(`${option} is ${kind} from ${least} to ${most}, not ${JSON.stringify(text)}`);
  }
  return value;
}
