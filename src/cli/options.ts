import { type Command, InvalidArgumentError, Option } from "commander";
import type { Config, TargetConfig } from "../config/config.ts";
import { didYouMean } from "../config/did-you-mean.ts";
import { loadConfig } from "../config/load.ts";
import { DURATION, parseDuration } from "../config/units.ts";
import { ErserverError, toErserverError } from "../errors/erserver-error.ts";
import { type TargetFailure, TargetFailures } from "./render/failure.ts";

/** Options of every command that works on a configuration. */
export interface ConfigOptions {
  readonly config: string;
  readonly target?: readonly string[];
  readonly fullRefresh?: boolean;
}

/** Adds `--config` and `--target`. */
export function withConfig(command: Command): Command {
  return command
    .addOption(
      new Option("-c, --config <file>", "configuration file").env("ERSERVER_CONFIG").default("erserver.yaml"),
    )
    .option("--target <name>", "only this target; may be given several times", collect);
}

/** Adds `--full-refresh`, for commands to which it matters which tables are replicated. */
export function withFullRefresh(command: Command): Command {
  return command.option(
    "--full-refresh",
    "with trigger capture: replace tables without a key whole, whenever anything of them has changed",
  );
}

function collect(value: string, before: readonly string[] = []): string[] {
  return [...before, value];
}

/** The value of an option as milliseconds: `500ms`, `30s`, `5m`, `1h`. */
export function duration(value: string): number {
  if (!DURATION.test(value))
    throw new InvalidArgumentError("A number and a unit is needed, such as 30s or 5m.");
  return parseDuration(value);
}

/** The configuration with only the targets that were asked for, in the order of the file. */
export function configFor({ config: path, target: names, fullRefresh = false }: ConfigOptions): Config {
  const loaded = loadConfig(path);
  const tables = fullRefresh ? { ...loaded.tables, withoutKey: "refresh" as const } : loaded.tables;
  const config = { ...loaded, tables };
  if (names === undefined) return config;
  const known = config.targets.map((target) => target.name);
  for (const name of names) {
    if (known.includes(name)) continue;
    throw new ErserverError("ERS-106", `${path} has no target "${name}".${didYouMean(name, known)}`, {
      subject: name,
      remedy: `Its targets are: ${known.join(", ")}.`,
    });
  }
  return { ...config, targets: config.targets.filter((target) => names.includes(target.name)) };
}

/**
 * Works on every target, whatever becomes of the others. Throws TargetFailures at the end if any has failed, ERS-902 if the signal
 * came before.
 */
export async function forEachTarget(
  config: Config,
  order: "in turn" | "at once",
  work: (target: TargetConfig) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const failures: TargetFailure[] = [];
  const one = async (target: TargetConfig): Promise<TargetFailure[]> => {
    if (signal.aborted) return [];
    try {
      await work(target);
      return [];
    } catch (error) {
      return [{ target: target.name, error: toErserverError(error) }];
    }
  };
  // In the order of the file, whichever was first to fail.
  if (order === "at once") failures.push(...(await Promise.all(config.targets.map(one))).flat());
  else for (const target of config.targets) failures.push(...(await one(target)));
  // What fails because we end is no failure.
  if (signal.aborted) throw interrupted();
  if (failures.length > 0) throw new TargetFailures(failures);
}

export function interrupted(): ErserverError {
  return new ErserverError("ERS-902", "interrupted before the work was done", {
    remedy: "Run the command again: it goes on where this one stopped.",
  });
}
