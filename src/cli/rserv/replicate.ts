import { Command, InvalidArgumentError } from "commander";
import { TARGET_NAME } from "../../config/schema.ts";
import { plural } from "../../observability/figures.ts";
import { tableLabels } from "../../postgres/catalog.ts";
import {
  prepareReplication,
  replicateContinuously,
  replicateOnce,
  type Replicated,
  type ReplicateOptions,
  type Replication,
} from "../../rserv/replicate.ts";
import { interrupted } from "../options.ts";
import { RunView } from "../render/run-view.ts";
import { PipelineBlock } from "../render/pipeline-block.ts";
import type { Terminal } from "../terminal.ts";
import { databaseOf, logOf, type PairOptions, say, withCommon } from "./options.ts";

type Options = PairOptions & {
  readonly continuous?: boolean;
  readonly name?: string;
};

export function replicateCommand(terminal: Terminal): Command {
  return withCommon(new Command("Replicate"), ["master", "slave"])
    .summary("bring a slave to the master's state of now")
    .addHelpText(
      "after",
      "\nExample: Replicate --user=pma --masterhost=localhost --slavehost=pma booktown booktown",
    )
    .description(
      "Bring a slave to the master's state of now, in one transaction. The first time the slave's tables are compared with the master's and made equal. " +
        "With tables named, only these; what happens to the others comes when they are asked for again.",
    )
    .argument("<masterdb>", "database of the master, or a connection string")
    .argument("<slavedb>", "database of the slave, or a connection string")
    .argument("[tables...]", "only these tables")
    .option("--continuous", "go on until stopped, at most 250 ms behind")
    .option(
      "--name <name>",
      "the slave's name among the master's slaves; by default one is made of its database",
      slaveName,
    )
    .action((masterdb: string, slavedb: string, tables: string[], options: Options) =>
      replicate({ masterdb, slavedb, tables }, options, terminal),
    );
}

async function replicate(
  { masterdb, slavedb, tables }: { masterdb: string; slavedb: string; tables: readonly string[] },
  options: Options,
  terminal: Terminal,
): Promise<void> {
  const replication: ReplicateOptions = {
    master: await databaseOf(masterdb, options, terminal, "master"),
    slave: await databaseOf(slavedb, options, terminal, "slave"),
    name: options.name,
    tables,
    log: logOf(options),
    signal: terminal.interrupted,
  };
  const prepared = await prepareReplication(replication);
  if (options.verbose === true) terminal.write(tablesText(prepared));
  if (options.continuous === true) {
    await continuously(prepared, replication, terminal);
    return;
  }
  let done: Replicated;
  {
    using view = new PipelineBlock(terminal, [prepared.target.name]);
    done = await replicateOnce(prepared, replication, (status) => view.onStatus(status));
  }
  if (terminal.interrupted.aborted) throw interrupted();
  say(terminal, options, `Replicate: ${resultText(done)}${leftOut(prepared)}`);
}

async function continuously(
  prepared: Replication,
  replication: ReplicateOptions,
  terminal: Terminal,
): Promise<void> {
  using view = new RunView(terminal, [prepared.target.name], false);
  await replicateContinuously(prepared, replication, (status) => view.onStatus(status));
}

/** What a Replicate has done. */
export function resultText({ syncId, rows, copied, changed, waitedForOther }: Replicated): string {
  const at = `sync ${syncId}`;
  if (waitedForOther) return `the running replicator has brought it to ${at}`;
  if (copied) return `tables compared and made equal, ${at}`;
  return changed
    ? `${plural(rows, "row")} replicated, ${at}`
    : `nothing to do, the databases are in sync, ${at}`;
}

function slaveName(value: string): string {
  if (!TARGET_NAME.test(value))
    throw new InvalidArgumentError("1 to 40 letters, digits, _ or - are needed, such as london.");
  return value;
}

/** Whoever forgot SlaveAddTable would believe that all is there. */
function leftOut({ only, masterOnly }: Replication): string {
  if (only !== undefined || masterOnly.length === 0) return "";
  const which = masterOnly.length > 3 ? plural(masterOnly.length, "table") : tableLabels(masterOnly);
  return `; not registered on the slave: ${which}`;
}

function tablesText({ target, only, tables, masterOnly }: Replication): string {
  const some = only === undefined ? "" : ` (${plural(only.size, "table")} of them now)`;
  const not = masterOnly.length === 0 ? "" : `not registered on the slave: ${tableLabels(masterOnly)}\n`;
  return `slave ${target.name}: ${tableLabels(tables)}${some}\n${not}`;
}
