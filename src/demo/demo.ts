import { setTimeout as sleep } from "node:timers/promises";
import { ErserverError } from "../errors/erserver-error.ts";
import { formatDuration, plural } from "../observability/figures.ts";
import { removeCopies } from "./binaries.ts";
import { Replication } from "./replication.ts";
import type { Screen } from "./screen.ts";
import { type ServerOptions, type Servers, TARGETS } from "./servers.ts";
import {
  compareStep,
  loadStep,
  outageStep,
  renameStep,
  replicateStep,
  sellStep,
  SOURCE,
  type Stage,
  startStep,
} from "./steps.ts";
import { Traffic } from "./traffic.ts";

export interface DemoOptions extends ServerOptions {
  /** Leave servers and replication running until the signal. */
  readonly keep: boolean;
  readonly screen: Screen;
  readonly signal: AbortSignal;
  /** How erserver is called here, for the commands to go on with: `erserver`. */
  readonly program: string;
}

/**
 * Shows replication with servers of its own: copy, following, the outage of a target, and the proof that nothing was lost. Whatever
 * happens, nothing is left behind. Throws ERS-902 when the signal came before the end.
 */
export async function runDemo(options: DemoOptions): Promise<void> {
  // Also when a second signal ends the process at once.
  process.once("exit", removeCopies);
  try {
    await tell(options);
  } catch (error) {
    if (!options.signal.aborted) throw error;
    throw new ErserverError("ERS-902", "the demo was interrupted; its servers are stopped and removed", {
      remedy: `Run it again: ${options.program} demo`,
      cause: error,
    });
  } finally {
    removeCopies();
    process.removeListener("exit", removeCopies);
  }
}

async function tell(options: DemoOptions): Promise<void> {
  const { screen, signal } = options;
  const startMs = performance.now();
  screen.title("erserver demo: a bookshop in New York, and its copies in London and Tokyo");
  await using servers = await startStep(screen, options);
  signal.throwIfAborted();
  await loadStep(screen, servers);
  await using replication = await Replication.prepare(servers);
  await replicateStep(screen, replication, signal);
  await using traffic = new Traffic(servers.url(servers.source));
  const stage: Stage = { screen, signal, servers, replication, traffic };
  const lag = await sellStep(stage);
  await renameStep(stage);
  const outageMs = await outageStep(stage);
  const tables = await compareStep(stage);
  await traffic.stop();
  screen.note(
    `All ${tables} tables are equal in New York, London and Tokyo: ${plural(traffic.committed, "transaction")},\n` +
      `each whole, once and in order, ${formatDuration(lag)} after its commit as a rule. Tokyo was away\n` +
      `for ${formatDuration(outageMs)}, and nobody had to do anything about it.\n` +
      `The demo took ${formatDuration(performance.now() - startMs)}.`,
    "good",
  );
  if (options.keep) await keepRunning(options, servers, replication);
  else screen.note(howToContinue(options.program));
}

async function keepRunning(
  { screen, signal, program }: DemoOptions,
  servers: Servers,
  replication: Replication,
): Promise<void> {
  const lines = [
    "Servers and replication stay until Ctrl-C, and are then removed.",
    "Meanwhile, in another terminal:",
    "",
    `  psql ${servers.url(servers.source)}    # ${SOURCE}`,
    ...TARGETS.map((name) => `  psql ${servers.url(servers.targets[name])}    # ${name}`),
    "",
    `  ${program} status -c ${replication.configFile} --watch`,
    `  ${program} verify -c ${replication.configFile}`,
  ];
  screen.note(lines.join("\n"));
  while (!signal.aborted) {
    for (const name of TARGETS) replication.status(name);
    await sleep(200, undefined, { signal }).catch(() => {});
  }
}

function howToContinue(program: string): string {
  return [
    "To go on:",
    `  ${program} demo --keep   leaves this running, to try status and verify`,
    `  ${program} run           replicates servers of yours, with this in erserver.yaml:`,
    "",
    "    source: postgres://replicator@ny.example/booktown",
    "    targets:",
    "      london: postgres://replicator@london.example/booktown",
  ].join("\n");
}
