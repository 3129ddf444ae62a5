import { Command } from "commander";
import { createLogger } from "../../observability/log.ts";
import { initPipeline } from "../../pipeline/init.ts";
import { type ConfigOptions, configFor, forEachTarget, withConfig, withFullRefresh } from "../options.ts";
import { renderProblems } from "../render/problems.ts";
import type { Terminal } from "../terminal.ts";

export function initCommand(terminal: Terminal): Command {
  return withFullRefresh(withConfig(new Command("init")))
    .summary("make what replication needs on both sides")
    .description(
      "Make what replication needs on both sides: schema erserver on the targets, publications and slots on the source, " +
        "which keeps its WAL for them from then on. Copies nothing yet. Changes nothing when run again; erserver run does it too.",
    )
    .addHelpText("after", "\nExample: erserver init -c erserver.yaml")
    .action((options: ConfigOptions) => init(options, terminal));
}

async function init(options: ConfigOptions, terminal: Terminal): Promise<void> {
  const config = configFor(options);
  const log = createLogger({ level: config.logLevel });
  const { interrupted: signal } = terminal;
  await forEachTarget(
    config,
    "in turn",
    async (target) => {
      const { changes, problems } = await initPipeline({ config, target, log, signal });
      if (changes.length === 0) terminal.write(`${target.name}: already initialized\n`);
      for (const change of changes) terminal.write(`${target.name}: created ${change}\n`);
      terminal.write(renderProblems(problems, terminal.paint));
    },
    signal,
  );
}
