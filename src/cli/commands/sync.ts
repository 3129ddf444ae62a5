import { setTimeout as sleep } from "node:timers/promises";
import { Command } from "commander";
import { formatLsn } from "../../change/lsn.ts";
import type { Config } from "../../config/config.ts";
import { ErserverError } from "../../errors/erserver-error.ts";
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
import { describeThrown, TargetFailures } from "../render/failure.ts";
import { PipelineBlock } from "../render/pipeline-block.ts";
import type { Terminal } from "../terminal.ts";

interface SyncOptions extends ConfigOptions {
  readonly timeout?: number;
  readonly every?: number;
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
    .option(
      "--every <duration>",
      "again and again, such as every 15m or 1h, until stopped; what failed because a server was away is tried at the next time",
      duration,
    )
    .option("--json", "print a JSON line for each target")
    .addHelpText("after", "\nExample: erserver sync --target london")
    .action((options: SyncOptions) => sync(options, terminal));
}

type SyncResult = Awaited<ReturnType<typeof syncTarget>>;

async function sync(options: SyncOptions, terminal: Terminal): Promise<void> {
  const config = configFor(options);
  if (options.every === undefined) return syncOnce(config, options, terminal);
  const { interrupted: signal } = terminal;
  for (let dueMs = performance.now(); !signal.aborted; dueMs = nextDue(dueMs, options.every)) {
    await sleep(Math.max(0, dueMs - performance.now()), undefined, { signal }).catch(() => {});
    if (signal.aborted) return;
    try {
      await syncOnce(config, options, terminal);
    } catch (error) {
      if (signal.aborted) return;
      if (!isPassing(error)) throw error;
      terminal.writeError(describeThrown(error, terminal.errorPaint).text);
    }
  }
}

/** A time that has passed while the last sync ran is left out. */
function nextDue(dueMs: number, everyMs: number): number {
  const missed = Math.floor((performance.now() - dueMs) / everyMs);
  return dueMs + (missed + 1) * everyMs;
}

/** Whether it may be otherwise the next time, without anybody doing something. */
function isPassing(thrown: unknown): boolean {
  const errors = thrown instanceof TargetFailures ? thrown.failures.map(({ error }) => error) : [thrown];
  return errors.every(
    (error) =>
      error instanceof ErserverError && (error.entry.retry === "reconnect" || error.code === "ERS-802"),
  );
}

async function syncOnce(config: Config, options: SyncOptions, terminal: Terminal): Promise<void> {
  const log = createLogger({ level: config.logLevel });
  const { interrupted: signal } = terminal;
  using view = new PipelineBlock(
    terminal,
    config.targets.map(({ name }) => name),
  );
  await forEachTarget(
    config,
    "at once",
    async (target) => {
      const timeout = options.timeout === undefined ? {} : { timeoutMs: options.timeout };
      const result = await syncTarget({
        config,
        target,
        log,
        signal,
        ...timeout,
        onStatus: (status) => view.onStatus(status),
      });
      if (signal.aborted) return;
      view.print(
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
