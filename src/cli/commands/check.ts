import { Command } from "commander";
import { createLogger } from "../../observability/log.ts";
import { checkTarget, notReplicated } from "../../pipeline/check.ts";
import type { Problem } from "../../pipeline/limits.ts";
import { type ConfigOptions, configFor, forEachTarget, withConfig, withFullRefresh } from "../options.ts";
import { renderProblems } from "../render/problems.ts";
import type { Terminal } from "../terminal.ts";

export function checkCommand(terminal: Terminal): Command {
  return withFullRefresh(withConfig(new Command("check")))
    .summary("see whether all is there that replication needs")
    .description(
      "See whether all is there that replication needs: both servers with their versions and settings, tables, privileges, and what replication " +
        "does not bring: the roles that a dump of the source needs, and values of sequences. Changes nothing.",
    )
    .addHelpText("after", "\nExample: erserver check --target london")
    .action((options: ConfigOptions) => check(options, terminal));
}

async function check(options: ConfigOptions, terminal: Terminal): Promise<void> {
  const config = configFor(options);
  const log = createLogger({ level: config.logLevel });
  const { interrupted: signal } = terminal;
  const tell = (problems: readonly Problem[]): void =>
    terminal.write(renderProblems(problems, terminal.paint));
  await forEachTarget(
    config,
    "in turn",
    async (target) => {
      const about = { config, target, log, signal };
      tell(await notReplicated(about));
      tell(await checkTarget(about));
      terminal.write(`${target.name}: all is there; next: erserver run\n`);
    },
    signal,
  );
}
