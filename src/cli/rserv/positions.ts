import { Command } from "commander";
import { ErserverError } from "../../errors/erserver-error.ts";
import { plural } from "../../observability/figures.ts";
import { cleanLog, slavePositions } from "../../rserv/positions.ts";
import type { Terminal } from "../terminal.ts";
import { type CommonOptions, databaseOf, say, syncId, withCommon } from "./options.ts";

export function getSyncIdCommand(terminal: Terminal): Command {
  return withCommon(new Command("GetSyncID"), ["slave"])
    .summary("say which sync a slave has applied last")
    .addHelpText("after", "\nExample: GetSyncID booktown --host pma")
    .description("Say which sync a slave has applied last; with --noverbose the number alone.")
    .argument("<slavedb>", "database, or a connection string")
    .action(async (slavedb: string, options: CommonOptions) => {
      const positions = await slavePositions(await databaseOf(slavedb, options, terminal));
      const bare = options.noverbose === true || options.quiet === true;
      for (const { name, master, syncId: id } of positions)
        terminal.write(bare ? `${id}\n` : `GetSyncID: last sync of ${name} from ${master}: ${id}\n`);
    });
}

export function cleanLogCommand(terminal: Terminal): Command {
  return withCommon(new Command("CleanLog"), ["master"])
    .summary("remove what every slave has from the master's log")
    .addHelpText("after", "\nExample: CleanLog booktown")
    .description(
      "Remove what every slave has from the master's log. Replicate does it by itself, too. What a slave has not got stays, whichever number is given.",
    )
    .argument("<masterdb>", "database, or a connection string")
    .argument(
      "[syncid]",
      "a sync that every slave should have: those that have not are named, and the exit code is 4",
      syncId,
    )
    .action(async (masterdb: string, id: bigint | undefined, options: CommonOptions) => {
      const { removed, behind } = await cleanLog(await databaseOf(masterdb, options, terminal), id);
      say(terminal, options, `CleanLog: ${plural(removed, "log record")} removed`);
      if (behind.length > 0) throw slavesBehind(behind);
    });
}

function slavesBehind(behind: Awaited<ReturnType<typeof cleanLog>>["behind"]): ErserverError {
  const names = behind.map(({ name }) => name).join(", ");
  const places = behind.map(
    ({ name, syncId: id }) => `${name} ${id === undefined ? "has told of none yet" : `is at ${id}`}`,
  );
  return new ErserverError(
    "ERS-414",
    `not every slave has that sync: ${places.join("; ")}; what they need stays`,
    {
      subject: names,
      remedy: `Run Replicate for them; or, if they are not to come back: MasterDrop MASTERDB --slave=NAME.`,
    },
  );
}
