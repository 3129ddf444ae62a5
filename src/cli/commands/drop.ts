import { Command } from "commander";
import { createLogger } from "../../observability/log.ts";
import { dropPipeline } from "../../pipeline/drop.ts";
import { type ConfigOptions, configFor, forEachTarget, withConfig } from "../options.ts";
import type { Terminal } from "../terminal.ts";

interface DropOptions extends ConfigOptions {
  readonly force?: boolean;
}

export function dropCommand(terminal: Terminal): Command {
  return withConfig(new Command("drop"))
    .summary("remove what erserver has made")
    .description(
      "Remove what erserver has made: slot and publications on the source, schema erserver on the targets. " +
        "The tables and their rows stay.",
    )
    .option("--force", "when a side cannot be reached: remove the rest, and say what is left there")
    .addHelpText("after", "\nExample: erserver drop --target tokyo")
    .action((options: DropOptions) => drop(options, terminal));
}

async function drop(options: DropOptions, terminal: Terminal): Promise<void> {
  const config = configFor(options);
  const log = createLogger({ level: config.logLevel });
  const { interrupted: signal } = terminal;
  await forEachTarget(
    config,
    "in turn",
    async (target) => {
      const force = options.force === true;
      const { dropped, left } = await dropPipeline({ config, target, log, signal, force });
      if (dropped.length + left.length === 0) terminal.write(`${target.name}: nothing to remove\n`);
      for (const object of dropped) terminal.write(`${target.name}: removed ${object}\n`);
      const { warning } = terminal.errorPaint;
      for (const object of left)
        terminal.writeError(`${target.name}: ${warning("LEFT BEHIND")}: ${object}\n`);
    },
    signal,
  );
}
