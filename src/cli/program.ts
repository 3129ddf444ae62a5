import { Command, CommanderError } from "commander";
import { ErserverError } from "../errors/erserver-error.ts";
import { packageVersion } from "../runtime/version.ts";
import { checkCommand } from "./commands/check.ts";
import { demoCommand } from "./commands/demo.ts";
import { dropCommand } from "./commands/drop.ts";
import { initCommand } from "./commands/init.ts";
import { pauseCommand, resumeCommand } from "./commands/pause.ts";
import { runCommand } from "./commands/run.ts";
import { statusCommand } from "./commands/status.ts";
import { syncCommand } from "./commands/sync.ts";
import { rservCommand } from "./rserv/program.ts";
import { verifyCommand } from "./commands/verify.ts";
import { describeThrown } from "./render/failure.ts";
import type { Terminal } from "./terminal.ts";

/** The command line: every command with its options. The reference page is made from its help. */
export function createProgram(terminal: Terminal): Command {
  const program = new Command("erserver")
    .description(
      "Replicates a PostgreSQL database to others: committed transactions, whole, in commit order, exactly once.",
    )
    .version(packageVersion(), "-V, --version")
    .addHelpText("after", "\nTo see it work, with servers of its own: erserver demo");
  const commands = [
    demoCommand,
    checkCommand,
    initCommand,
    runCommand,
    syncCommand,
    statusCommand,
    verifyCommand,
    pauseCommand,
    resumeCommand,
    dropCommand,
    rservCommand,
  ];
  for (const create of commands) program.addCommand(create(terminal));
  for (const command of allCommands(program)) {
    command
      .helpCommand(false)
      .helpOption("-h, --help", "show this help")
      .exitOverride((error) => {
        throw error.exitCode === 0 ? error : usageError(error, command);
      })
      .configureOutput({
        writeOut: (text) => terminal.write(text),
        writeErr: (text) => terminal.writeError(text),
        // Said once, with the other failures.
        outputError: () => {},
      });
  }
  return program;
}

/** Runs one command line, without the program's name. Returns the exit code; what went wrong has been said. */
export async function runProgram(args: readonly string[], terminal: Terminal): Promise<number> {
  try {
    await createProgram(terminal).parseAsync(args, { from: "user" });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return 0;
    const { exit, text } = describeThrown(error, terminal.errorPaint);
    terminal.writeError(text);
    return exit;
  }
}

/** A command with those below it. */
function allCommands(command: Command): Command[] {
  return [command, ...command.commands.flatMap(allCommands)];
}

function usageError({ code, message }: CommanderError, command: Command): ErserverError {
  const name = fullName(command);
  // Commander prints the help itself when no command was given.
  const text =
    code === "commander.help"
      ? "no command was given"
      : message
          .replace(/^error: /, "")
          // The value of an option that is misspelt may be a secret.
          .replace(/^(unknown option '[^'=]*)=.*'/s, "$1'")
          .replaceAll("\n", " ");
  // By its old name, without the word in front.
  const old = command.commands
    .find((one) => one.name() === "rserv")
    ?.commands.find((one) => text === `unknown command '${one.name()}'`);
  const hint = old === undefined ? "" : ` (Did you mean rserv ${old.name()}?)`;
  return new ErserverError("ERS-106", text + hint, { remedy: `Run "${name} --help" to see what it takes.` });
}
/** As it is called: `erserver rserv MasterInit`. */
function fullName(command: Command): string {
  return command.parent === null ? command.name() : `${fullName(command.parent)} ${command.name()}`;
}
