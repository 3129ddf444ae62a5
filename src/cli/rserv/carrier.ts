import { readFile } from "node:fs/promises";
import { Command } from "commander";
import { errnoOf } from "../../config/environment.ts";
import { ErserverError } from "../../errors/erserver-error.ts";
import { formatBytes, formatCount, plural } from "../../observability/figures.ts";
import { applyCarrier } from "../../pipeline/apply-carrier.ts";
import { confirmCarrier } from "../../pipeline/confirm-carrier.ts";
import { prepareCarrier } from "../../pipeline/prepare-carrier.ts";
import { interrupted } from "../options.ts";
import type { Terminal } from "../terminal.ts";
import { type CommonOptions, databaseOf, logOf, say, syncId, withCommon } from "./options.ts";

type PrepareOptions = CommonOptions & {
  readonly slave: string;
  readonly recipient?: string;
  readonly following?: boolean;
};

/** A slave that nobody has named. */
const SLAVE = "carrier";

export function carrierCommands(terminal: Terminal): Command[] {
  return [
    withCommon(new Command("PrepareSnapshot"), ["master"])
      .summary("write what has changed to a file, for a slave that no network reaches")
      .description(
        "Write what has changed since the last file that MasterSync was told of to standard output, for a slave that no network reaches. " +
          "The first file holds all rows of the registered tables.",
      )
      .argument("<masterdb>", "database, or a connection string")
      .option("--slave <name>", "the slave's name", SLAVE)
      .option("--recipient <key>", "encrypt the file to this age key (age1…)")
      .option("--following", "begin where the last file ends, whether or not MasterSync was told of it")
      .addHelpText("after", "\nExample: PrepareSnapshot booktown > snapshot")
      .action((masterdb: string, options: PrepareOptions) => prepare(masterdb, options, terminal)),
    withCommon(new Command("ApplySnapshot"), ["slave"])
      .summary("apply a file of PrepareSnapshot")
      .description(
        "Apply a file of PrepareSnapshot, from standard input, in one transaction. What is cut short, altered, out of order or for another slave is refused whole. " +
          "The first file replaces the rows of its tables.",
      )
      .argument("<slavedb>", "database, or a connection string")
      .option("--identity <file>", "file with the age identity to decrypt by (AGE-SECRET-KEY-1…)")
      .addHelpText("after", "\nExample: ApplySnapshot booktown < snapshot")
      .action((slavedb: string, options: CommonOptions & { identity?: string }) =>
        apply(slavedb, options, terminal),
      ),
    withCommon(new Command("MasterSync"), ["master"])
      .summary("tell the master that a slave has applied a file")
      .description(
        "Tell the master that a slave has applied the file of this number: the next one begins there, and what was kept for it is removed.",
      )
      .argument("<masterdb>", "database, or a connection string")
      .argument("<syncid>", "number of the file, as ApplySnapshot and GetSyncID say it", syncId)
      .option("--slave <name>", "the slave's name", SLAVE)
      .addHelpText("after", "\nExample: MasterSync booktown 17")
      .action(async (masterdb: string, id: bigint, options: CommonOptions & { slave: string }) => {
        const { conninfo: source, timeoutMs, signal } = await databaseOf(masterdb, options, terminal);
        const how = await confirmCarrier({ source, name: options.slave, timeoutMs, signal }, Number(id));
        say(terminal, options, `MasterSync: sync ${id} of ${options.slave} ${how}`);
      }),
  ];
}

async function prepare(masterdb: string, options: PrepareOptions, terminal: Terminal): Promise<void> {
  if (process.stdout.isTTY)
    throw new ErserverError("ERS-106", "a carrier file is not for a terminal", {
      remedy: `Redirect it: PrepareSnapshot ${masterdb} > snapshot`,
    });
  const { conninfo: source, timeoutMs, signal } = await databaseOf(masterdb, options, terminal);
  const { slave: name, recipient, following } = options;
  // Standard output is the file.
  const progress = progressTo(terminal);
  const preparing = prepareCarrier(
    { source, name, timeoutMs, signal, recipient, following, onProgress: progress.show },
    process.stdout,
  );
  const prepared = await endsWith(preparing, progress, signal);
  if (options.quiet === true) return;
  terminal.writeError(
    prepared === undefined
      ? `PrepareSnapshot: nothing has changed; nothing was written\n`
      : `PrepareSnapshot: sync ${prepared.syncId} for ${name}, ${plural(prepared.rows, "row")}, ${formatBytes(prepared.bytes)}; ${beginning(prepared.baseSyncId)}\n`,
  );
}

function beginning(base: number | undefined): string {
  return base === undefined ? "it holds all rows" : `it follows sync ${base}`;
}

async function apply(
  slavedb: string,
  options: CommonOptions & { readonly identity?: string },
  terminal: Terminal,
): Promise<void> {
  if (process.stdin.isTTY)
    throw new ErserverError("ERS-106", "there is no carrier file at standard input", {
      remedy: `Redirect it: ApplySnapshot ${slavedb} < snapshot`,
    });
  const { conninfo: target, timeoutMs, signal } = await databaseOf(slavedb, options, terminal);
  const identity = options.identity === undefined ? undefined : await readIdentity(options.identity);
  const progress = progressTo(terminal);
  const applying = applyCarrier(
    { target, timeoutMs, signal, log: logOf(options), identity, onProgress: progress.show },
    process.stdin,
  );
  const applied = await endsWith(applying, progress, signal);
  const { name, syncId: id, rows, source } = applied;
  const slave = name === SLAVE ? "" : ` --slave=${name}`;
  say(
    terminal,
    options,
    `ApplySnapshot: sync ${id} applied, ${plural(rows, "row")} of ${source.database}; then on the master: MasterSync ${source.database} ${id}${slave}`,
  );
}

async function readIdentity(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw new ErserverError("ERS-105", `the identity's file "${path}" cannot be read (${errnoOf(error)})`, {
      subject: path,
      remedy: "Correct the path, or make the file readable for the user that runs erserver.",
      cause: error,
    });
  }
}

/** What is given up because of the signal is no failure of its own. */
async function endsWith<T>(work: Promise<T>, progress: Progress, signal: AbortSignal): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw signal.aborted ? interrupted() : error;
  } finally {
    progress.end();
  }
}

interface Progress {
  readonly show: (progress: { readonly rows: number }) => void;
  readonly end: () => void;
}

const LINE_MS = 5_000;

/** Rows and rate: on standard error, drawn again where that is a terminal, else a line now and then. */
function progressTo(terminal: Terminal): Progress {
  const live = process.stderr.isTTY;
  const startMs = performance.now();
  let saidMs = startMs;
  let drawn = false;
  return {
    show: ({ rows }) => {
      const now = performance.now();
      if (now - saidMs < (live ? 200 : LINE_MS)) return;
      saidMs = now;
      const rate = formatCount(Math.round((rows / (now - startMs)) * 1000));
      const text = `${plural(rows, "row")}, ${rate} a second`;
      drawn = live;
      terminal.writeError(live ? `\r\u001b[K${text}` : `${text}\n`);
    },
    end: () => {
      if (drawn) terminal.writeError("\r\u001b[K");
    },
  };
}
