import { Command } from "commander";
import type { TargetConfig } from "../../config/config.ts";
import { toErserverError } from "../../errors/erserver-error.ts";
import { createLogger } from "../../observability/log.ts";
import { Pipeline } from "../../pipeline/pipeline.ts";
import { type ConfigOptions, configFor, withConfig, withFullRefresh } from "../options.ts";
import { renderTargetFailures, type TargetFailure, TargetFailures } from "../render/failure.ts";
import { RunView } from "../render/run-view.ts";
import type { Terminal } from "../terminal.ts";

interface RunOptions extends ConfigOptions {
  readonly adopt?: boolean;
  readonly json?: boolean;
}

/** What is wrong with the source stops every target, nearly at once: it is said once. */
const GATHER_MS = 300;

export function runCommand(terminal: Terminal): Command {
  return withFullRefresh(withConfig(new Command("run")))
    .summary("replicate until stopped")
    .description(
      "Replicate: prepare what is missing, copy the tables, then follow the source until stopped. " +
        "Stays in the foreground. SIGTERM or Ctrl-C ends it after the transaction in flight; a second one at once.",
    )
    .option("--adopt", "accept target tables that have rows already, if they equal the source's")
    .option("--json", "print events as JSON lines")
    .addHelpText("after", "\nExample: erserver run -c erserver.yaml")
    .action((options: RunOptions) => run(options, terminal));
}

async function run(options: RunOptions, terminal: Terminal): Promise<void> {
  const config = configFor(options);
  const json = options.json === true;
  using view = new RunView(
    terminal,
    config.targets.map((target) => target.name),
    json,
  );
  const log = createLogger({
    // On a terminal the view says already what the log says at level info.
    level: terminal.live && config.logLevel === "info" ? "warn" : config.logLevel,
    ...(terminal.live ? { write: (line: string) => view.printError(line) } : {}),
  });
  const failures: TargetFailure[] = [];
  const unsaid: TargetFailure[] = [];
  const say = (): void => {
    if (unsaid.length > 0) view.printError(renderTargetFailures(unsaid.splice(0), terminal.errorPaint));
  };
  let timer: NodeJS.Timeout | undefined;
  const follow = async (target: TargetConfig): Promise<void> => {
    const pipeline = new Pipeline({
      config,
      target,
      log,
      occupied: options.adopt === true ? "adopt" : "refuse",
      onStatus: (status) => view.onStatus(status),
    });
    try {
      await pipeline.run(terminal.interrupted);
      view.ended(pipeline.status);
    } catch (error) {
      const failure = { target: target.name, error: toErserverError(error) };
      failures.push(failure);
      unsaid.push(failure);
      timer ??= setTimeout(() => {
        timer = undefined;
        say();
      }, GATHER_MS);
    }
  };
  await Promise.all(config.targets.map(follow));
  clearTimeout(timer);
  say();
  // All that were not stopped by an error were ended by the signal.
  if (failures.length === 0) return;
  throw new TargetFailures(failures, { shown: true });
}
