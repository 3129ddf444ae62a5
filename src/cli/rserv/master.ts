import { Command } from "commander";
import {
  masterAddTable,
  masterDrop,
  masterForget,
  masterInit,
  masterRemoveTable,
  type TableResult,
} from "../../rserv/master.ts";
import { plural } from "../../observability/figures.ts";
import { isAlso } from "../../rserv/database.ts";
import type { Terminal } from "../terminal.ts";
import { addedText, removedText } from "./lines.ts";
import { type CommonOptions, databaseOf, say, withCommon } from "./options.ts";

export function masterCommands(terminal: Terminal): Command[] {
  const command = (name: string): Command => withCommon(new Command(name), ["master"]);
  return [
    command("MasterInit")
      .summary("make a database a master")
      .addHelpText("after", "\nExample: MasterInit booktown")
      .description(
        "Make a database a master: schema erserver in it. Its tables are added with MasterAddTable.",
      )
      .argument("<masterdb>", "database, or a connection string")
      .action(async (masterdb: string, options: CommonOptions) => {
        const master = await databaseOf(masterdb, options, terminal);
        const made = await masterInit(master);
        const { database } = master.conninfo;
        const also =
          made && (await isAlso("slave", master)) ? ", and stays a slave (MasterDrop would undo this)" : "";
        say(
          terminal,
          options,
          made
            ? `MasterInit: ${database} is a master${also}; next: MasterAddTable ${database} TABLE`
            : `MasterInit: ${database} is already initialized as a master`,
        );
      }),
    command("MasterAddTable")
      .summary("have changes of a table replicated")
      .addHelpText("after", "\nExample: MasterAddTable booktown customer lastname")
      .description(
        "Have changes of a table replicated. With a column: an UPDATE is replicated when it changes that column, or one of those named in other " +
          "calls, or the key; the row then goes whole. INSERT and DELETE always are. Without a column, all changes are.",
      )
      .argument("<masterdb>", "database, or a connection string")
      .argument("<table>", "table, with its schema where several have the name")
      .argument("[column]", "column mode: the column whose changes are replicated")
      .option(
        "--full-refresh",
        "take a table without a key: it is replaced whole whenever anything of it has changed",
      )
      .action(
        async (
          masterdb: string,
          table: string,
          column: string | undefined,
          options: CommonOptions & { fullRefresh?: boolean },
        ) => {
          const master = await databaseOf(masterdb, options, terminal);
          const fullRefresh = options.fullRefresh === true;
          const result = await masterAddTable(master, { table, column, fullRefresh });
          say(terminal, options, `MasterAddTable: ${addedText(result)}${meaning(result)}`);
        },
      ),
    command("MasterRemoveTable")
      .summary("have a table, or a column of it, replicated no more")
      .addHelpText("after", "\nExample: MasterRemoveTable booktown customer")
      .description(
        "Have a table replicated no more, or changes of one of its columns. Triggers and records go; the table stays.",
      )
      .argument("<masterdb>", "database, or a connection string")
      .argument("<table>", "table")
      .argument("[column]", "column; the last one takes the table with it")
      .action(async (masterdb: string, table: string, column: string | undefined, options: CommonOptions) => {
        const master = await databaseOf(masterdb, options, terminal);
        const result = await masterRemoveTable(master, { table, column });
        const wanted = result?.wantedBy ?? [];
        const stays = wanted.length === 0 ? "" : `; its triggers stay for ${wanted.join(", ")}`;
        say(terminal, options, `MasterRemoveTable: ${removedText(table, result)}${stays}`);
      }),
    command("MasterDrop")
      .summary("undo MasterInit and MasterAddTable")
      .addHelpText("after", "\nExample: MasterDrop booktown")
      .description("Remove all that MasterInit and MasterAddTable have made. The tables and their rows stay.")
      .argument("<masterdb>", "database, or a connection string")
      .option("--slave <name>", "only forget this slave, which is not to come back")
      .action(async (masterdb: string, options: CommonOptions & { slave?: string }) => {
        const master = await databaseOf(masterdb, options, terminal);
        const { database } = master.conninfo;
        if (options.slave !== undefined) {
          const { known, others } = await masterForget(master, options.slave);
          const rest = others.length === 0 ? "there is no other" : `there are ${others.join(", ")}`;
          say(
            terminal,
            options,
            `MasterDrop: ${known ? `slave ${options.slave} is forgotten` : `there is no slave ${options.slave}; ${rest}`}`,
          );
          return;
        }
        const dropped = await masterDrop(master);
        say(
          terminal,
          options,
          dropped === undefined
            ? `MasterDrop: ${database} is no master; nothing to remove`
            : `MasterDrop: ${database} is no master any more; triggers on ${plural(dropped.tables, "table")} removed`,
        );
      }),
  ];
}

/** What is left out, or done otherwise than somebody may expect. */
function meaning({ whole, columns }: TableResult): string {
  if (whole) return "; it has no key and is replaced whole";
  return columns === null ? "" : "; an UPDATE of other columns alone is not replicated";
}
