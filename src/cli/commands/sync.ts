import { Command } from "commander";
import { formatLsn } from "../../change/lsn.ts";
import { createLogger } from "../../observability/log.ts";
import { plural } from "../../observability/figures.ts";
import { syncTarget } from "../../pipeline/sync.ts";
import {
  type ConfigOptions,
  configFor,
  duration,
  forEachTarget,
  withConfig,
  withFullRefresh,
} from "../options.ts";
import type { Terminal } from "../terminal.ts";

interface SyncOptions extends ConfigOptions {
  readonly timeout?: number;
  readonly json?: boolean;
}

export function syncCommand(terminal: Terminal): Command {
  return withFullRefresh(withConfig(new Command("sync")))
    .summary("bring the targets to the source's position of now")
    .description(
      "Bring every target to where the source is at this moment, then end. Copies the tables the first time. " +
        "While an erserver run serves a target, waits for it to get there.",
    )
    .option("--timeout <duration>", "give up after this time, such as 30s or 5m; default: never", duration)
    .option("--json", "print a JSON line for each target")
    .addHelpText("after", "\nExample: erserver sync --target london")
    .action((options: SyncOptions) => sync(options, terminal));
}

type SyncResult = Awaited<ReturnType<typeof syncTarget>>;

async function sync(options: SyncOptions, terminal: Terminal): Promise<void> {
  const config = configFor(options);
  const log = createLogger({ level: config.logLevel });
  const { interrupted: signal } = terminal;
  await forEachTarget(
    config,
    "at once",
    async (target) => {
      const timeout = options.timeout === undefined ? {} : { timeoutMs: options.timeout };
      const result = await syncTarget({ config, target, log, signal, ...timeout });
      if (signal.aborted) return;
      terminal.write(
        options.json === true ? jsonLine(target.name, result) : `${target.name}: ${describe(result)}\n`,
      );
    },
    signal,
  );
}

function describe({ transactions, rows, waitedForOther, lsn, copied }: SyncResult): string {
  const position = formatLsn(lsn);
  if (waitedForOther) return `the running erserver has brought it to ${position}`;
  const applied = `${plural(transactions, "transaction")} (${plural(rows, "row")}) applied, now at ${position}`;
  if (copied) return transactions === 0 ? `tables copied, now at ${position}` : `tables copied, ${applied}`;
  return transactions === 0 ? `nothing to do, at ${position}` : applied;
}

function jsonLine(target: string, { lsn, ...result }: SyncResult): string {
  return `${JSON.stringify({ target, position: formatLsn(lsn), ...result })}\n`;
}
