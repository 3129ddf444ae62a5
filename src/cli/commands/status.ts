import { setTimeout as sleep } from "node:timers/promises";
import { Command } from "commander";
import { readStatus, type TargetStatus } from "../../pipeline/read-status.ts";
import { type ConfigOptions, configFor, interrupted, withConfig } from "../options.ts";
import { clock } from "../render/pipeline-lines.ts";
import { renderStatus, statusJson } from "../render/status.ts";
import type { Terminal } from "../terminal.ts";

interface StatusOptions extends ConfigOptions {
  readonly json?: boolean;
  readonly watch?: boolean;
}

const WATCH_MS = 1_000;

const CLEAR = "\u001b[H\u001b[2J";

/** From the top of the screen, each line cleared to its end, and then the rest of the screen: without flicker. */
const overwrite = (text: string): string => `\u001b[H${text.replaceAll("\n", "\u001b[K\n")}\u001b[J`;

export function statusCommand(terminal: Terminal): Command {
  return withConfig(new Command("status"))
    .summary("show state, lag and position of every target")
    .description(
      "Show the state of every target: lag, position, what was applied, what the source keeps for it, the last error and its remedy.",
    )
    .option("--json", "print JSON: an array with an object for each target")
    .option("--watch", "again every second, until Ctrl-C")
    .addHelpText("after", "\nExample: erserver status --watch")
    .action((options: StatusOptions) => status(options, terminal));
}

async function status(options: StatusOptions, terminal: Terminal): Promise<void> {
  const config = configFor(options);
  const show = (targets: readonly TargetStatus[]): string =>
    options.json === true
      ? `${JSON.stringify(statusJson(targets))}\n`
      : renderStatus(targets, new Date(), terminal.paint);
  const { interrupted: signal } = terminal;
  if (options.watch !== true) {
    const targets = await readStatus(config, signal);
    if (signal.aborted) throw interrupted();
    terminal.write(show(targets));
    return;
  }
  const redraw = terminal.live && options.json !== true;
  if (redraw) terminal.write(CLEAR);
  while (!signal.aborted) {
    const text = show(await readStatus(config, signal));
    if (signal.aborted) return;
    terminal.write(
      redraw ? overwrite(`${terminal.paint.faint(`${clock(new Date())}  Ctrl-C to end`)}\n${text}`) : text,
    );
    await sleep(WATCH_MS, undefined, { signal }).catch(() => {});
  }
}
