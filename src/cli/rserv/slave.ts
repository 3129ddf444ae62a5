import { Command } from "commander";
import { createDatabase, databaseExists, isAlso } from "../../rserv/database.ts";
import { slaveAddTable, slaveDrop, slaveInit, slaveRemoveTable } from "../../rserv/slave.ts";
import { renderProblems } from "../render/problems.ts";
import type { Terminal } from "../terminal.ts";
import { addedText, removedText } from "./lines.ts";
import { type CommonOptions, databaseOf, say, withCommon } from "./options.ts";

export function slaveCommands(terminal: Terminal): Command[] {
  const command = (name: string): Command => withCommon(new Command(name), ["slave"]);
  return [
    command("SlaveInit")
      .summary("make a database a slave")
      .addHelpText("after", "\nExample: SlaveInit booktown --host pma")
      .description("Make a database a slave: schema erserver in it. Its tables are added with SlaveAddTable.")
      .argument("<slavedb>", "database, or a connection string")
      .option("--createdb", "create the database when it is not there")
      .action(async (slavedb: string, options: CommonOptions & { createdb?: boolean }) => {
        const slave = await databaseOf(slavedb, options, terminal);
        const create = options.createdb === true && !(await databaseExists(slave));
        if (create) await createDatabase(slave);
        const { made, problems } = await slaveInit(slave);
        const { database } = slave.conninfo;
        const also =
          made && (await isAlso("master", slave)) ? ", and stays a master (SlaveDrop would undo this)" : "";
        say(
          terminal,
          options,
          made
            ? `SlaveInit: ${database} is ${create ? "created, and " : ""}a slave${also}; next: SlaveAddTable ${database} TABLE`
            : `SlaveInit: ${database} is already initialized as a slave`,
        );
        if (options.quiet !== true) terminal.writeError(renderProblems(problems, terminal.errorPaint));
      }),
    command("SlaveAddTable")
      .summary("have a table made and kept as on the master")
      .addHelpText("after", "\nExample: SlaveAddTable booktown customer lastname --host pma")
      .description(
        "Have a table made and kept as on the master: the first Replicate makes its rows those of the master, whatever they were. " +
          "The columns must be those that MasterAddTable was told.",
      )
      .argument("<slavedb>", "database, or a connection string")
      .argument("<table>", "table, with its schema where several have the name")
      .argument("[column]", "column, as for MasterAddTable")
      .action(async (slavedb: string, table: string, column: string | undefined, options: CommonOptions) => {
        const slave = await databaseOf(slavedb, options, terminal);
        say(terminal, options, `SlaveAddTable: ${addedText(await slaveAddTable(slave, { table, column }))}`);
      }),
    command("SlaveRemoveTable")
      .summary("leave a table, or a column of it, alone from now on")
      .addHelpText("after", "\nExample: SlaveRemoveTable booktown customer --host pma")
      .description("Leave a table alone from now on; it stays as it is.")
      .argument("<slavedb>", "database, or a connection string")
      .argument("<table>", "table")
      .argument("[column]", "column; the last one takes the table with it")
      .action(async (slavedb: string, table: string, column: string | undefined, options: CommonOptions) => {
        const slave = await databaseOf(slavedb, options, terminal);
        const result = await slaveRemoveTable(slave, { table, column });
        say(terminal, options, `SlaveRemoveTable: ${removedText(table, result)}`);
      }),
    command("SlaveDrop")
      .summary("undo SlaveInit and SlaveAddTable")
      .addHelpText("after", "\nExample: SlaveDrop booktown --host pma")
      .description(
        "Remove all that SlaveInit, SlaveAddTable and Replicate have made. The tables and their rows stay.",
      )
      .argument("<slavedb>", "database, or a connection string")
      .action(async (slavedb: string, options: CommonOptions) => {
        const slave = await databaseOf(slavedb, options, terminal);
        const dropped = await slaveDrop(slave);
        const { database } = slave.conninfo;
        if (dropped === undefined) {
          say(terminal, options, `SlaveDrop: ${database} is no slave; nothing to remove`);
          return;
        }
        const { names, others } = dropped;
        const stays = others.length === 0 ? "" : `; targets of erserver stay: ${others.join(", ")}`;
        const then = names.map((name) => `MasterDrop MASTERDB --slave=${name}`).join(", ");
        const next = names.length === 0 ? "" : `; on the master, where changes are kept for it, run: ${then}`;
        say(terminal, options, `SlaveDrop: ${database} is no slave any more${stays}${next}`);
      }),
  ];
}
