import { Command } from "commander";
import { createLogger } from "../../observability/log.ts";
import { setDesired } from "../../pipeline/pause.ts";
import { type ConfigOptions, configFor, forEachTarget, withConfig } from "../options.ts";
import type { Terminal } from "../terminal.ts";

export function pauseCommand(terminal: Terminal): Command {
  return withConfig(new Command("pause"))
    .summary("let targets stand still, on a state that the source had")
    .description(
      "Let targets stand still, on a state that the source had, until erserver resume. A running erserver notices within a second, one that is " +
        "started later at once. The source keeps its WAL meanwhile.",
    )
    .addHelpText("after", "\nExample: erserver pause --target tokyo")
    .action((options: ConfigOptions) => wish(options, "paused", terminal));
}

export function resumeCommand(terminal: Terminal): Command {
  return withConfig(new Command("resume"))
    .summary("let paused targets go on")
    .description("Let targets that were paused go on where they are.")
    .addHelpText("after", "\nExample: erserver resume --target tokyo")
    .action((options: ConfigOptions) => wish(options, "running", terminal));
}

const WORDS = { paused: "paused", running: "goes on" } as const;

async function wish(options: ConfigOptions, desired: keyof typeof WORDS, terminal: Terminal): Promise<void> {
  const config = configFor(options);
  const log = createLogger({ level: config.logLevel });
  const { interrupted: signal } = terminal;
  await forEachTarget(
    config,
    "at once",
    async (target) => {
      const changed = await setDesired({ config, target, log, signal }, desired);
      terminal.write(
        `${target.name}: ${changed ? WORDS[desired] : desired === "paused" ? "already paused" : "was not paused"}\n`,
      );
    },
    signal,
  );
}
