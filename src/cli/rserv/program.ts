import { Command } from "commander";
import type { Terminal } from "../terminal.ts";
import { carrierCommands } from "./carrier.ts";
import { cleanLogCommand, getSyncIdCommand } from "./positions.ts";
import { masterCommands } from "./master.ts";
import { replicateCommand } from "./replicate.ts";
import { slaveCommands } from "./slave.ts";
import { testCommands } from "./test.ts";

/** The commands of the eR server of 2001, under their old names: as `erserver rserv MasterInit`, and as executables in folder `rserv`. */
export function rservCommand(terminal: Terminal): Command {
  const rserv = new Command("rserv")
    .summary("the commands of the eR server of 2001, by their old names")
    .addHelpText("after", "\nExample: erserver rserv MasterInit booktown")
    .description(
      "The commands of the eR server of 2001, by their old names; they are in folder rserv, too. What they set up and what the other " +
        "commands set up is one and the same. Passwords come from ~/.pgpass, PGPASSWORD, or a prompt.",
    );
  for (const command of [
    ...masterCommands(terminal),
    ...slaveCommands(terminal),
    replicateCommand(terminal),
    getSyncIdCommand(terminal),
    cleanLogCommand(terminal),
    ...carrierCommands(terminal),
    ...testCommands(terminal),
  ])
    rserv.addCommand(command);
  return rserv;
}
