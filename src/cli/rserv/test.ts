import { randomBytes } from "node:crypto";
import { emitKeypressEvents } from "node:readline";
import { Command } from "commander";
import { describeConninfo } from "../../config/conninfo.ts";
import { ErserverError, toErserverError } from "../../errors/erserver-error.ts";
import { prepareReplication, replicateOnce, type ReplicateOptions } from "../../rserv/replicate.ts";
import {
  existingTestDatabases,
  initTestDatabases,
  showTest,
  updateTest,
} from "../../rserv/test-databases.ts";
import { interrupted } from "../options.ts";
import { LiveBlock } from "../render/live-block.ts";
import type { Terminal } from "../terminal.ts";
import { databaseOf, logOf, type PairOptions, say, withCommon } from "./options.ts";
import { resultText } from "./replicate.ts";
import {
  type Button,
  initialScreen,
  type Key,
  onKey,
  renderScreen,
  type ScreenState,
} from "./test-screen.ts";

/** As the old test called them. */
const MASTER = "master";
const SLAVE = "slave";

export function testCommands(terminal: Terminal): Command[] {
  const command = (name: string): Command =>
    withCommon(new Command(name), ["master", "slave"])
      .argument("[masterdb]", "database of the master", MASTER)
      .argument("[slavedb]", "database of the slave", SLAVE);
  return [
    command("InitRservTest")
      .summary("make two databases for RservTest")
      .addHelpText("after", "\nExample: InitRservTest --user postgres --yes")
      .description(
        "Make two databases with three tables, for RservTest: with a number, an OID and a text as keys, 100 rows each. Databases of these names are dropped.",
      )
      .option("--yes", "do not ask before databases are dropped")
      .action((masterdb: string, slavedb: string, options: PairOptions & { yes?: boolean }) =>
        initTest(masterdb, slavedb, options, terminal),
      ),
    command("RservTest")
      .summary("see a row go from master to slave")
      .addHelpText("after", "\nExample: RservTest --headless")
      .description(
        "See a row go from master to slave: Update inserts the text on the master, Replicate replicates, Show looks for it on the slave.",
      )
      .option("--headless", "press the buttons by itself, and fail when the row does not arrive")
      .action((masterdb: string, slavedb: string, options: PairOptions & { headless?: boolean }) =>
        rservTest(masterdb, slavedb, options, terminal),
      ),
  ];
}

async function initTest(
  masterdb: string,
  slavedb: string,
  options: PairOptions & { readonly yes?: boolean },
  terminal: Terminal,
): Promise<void> {
  const master = await databaseOf(masterdb, options, terminal, "master");
  const slave = await databaseOf(slavedb, options, terminal, "slave");
  const existing = options.yes === true ? [] : await existingTestDatabases([master, slave]);
  if (existing.length > 0) {
    const names = existing.join(" and ");
    const answer = await terminal.ask(`This drops ${names} with all that is in there. Go on? (y/N) `);
    if (answer === undefined || !/^y(?:es)?$/i.test(answer.trim()))
      throw new ErserverError(
        "ERS-106",
        `${names} would be dropped, and nobody has agreed to that; nothing was done`,
        {
          subject: names,
          remedy: "Answer y, or give --yes; or name other databases.",
        },
      );
  }
  await initTestDatabases(master, slave);
  const [one, other] = [master.conninfo.database, slave.conninfo.database];
  say(terminal, options, `InitRservTest: ${one} and ${other} are made; next: RservTest ${one} ${other}`);
}

async function rservTest(
  masterdb: string,
  slavedb: string,
  options: PairOptions & { readonly headless?: boolean },
  terminal: Terminal,
): Promise<void> {
  const replication: ReplicateOptions = {
    master: await databaseOf(masterdb, options, terminal, "master"),
    slave: await databaseOf(slavedb, options, terminal, "slave"),
    tables: [],
    log: logOf(options),
    signal: terminal.interrupted,
  };
  if (options.headless === true) await headless(replication, terminal);
  else await screen(replication, terminal);
}

/** Does what a button says; returns what there is to say about it, and for Show whether the text was there. */
async function press(
  button: Exclude<Button, "Quit">,
  text: string,
  replication: ReplicateOptions,
): Promise<{ message: string; shown?: boolean }> {
  const { master, slave } = replication;
  if (button === "Update") {
    await updateTest(master, text);
    return { message: "inserted on the master" };
  }
  if (button === "Show") {
    const shown = await showTest(slave, text);
    return { message: shown ? "the slave has it" : "the slave does not have it", shown };
  }
  const prepared = await prepareReplication(replication);
  return { message: resultText(await replicateOnce(prepared, replication, () => {})) };
}

async function headless(replication: ReplicateOptions, terminal: Terminal): Promise<void> {
  const text = `RservTest ${randomBytes(6).toString("hex")}`;
  let arrived = false;
  for (const button of ["Update", "Show", "Replicate", "Show"] as const) {
    const { message, shown } = await press(button, text, replication);
    if (terminal.interrupted.aborted) throw interrupted();
    arrived = shown === true;
    terminal.write(`${button}: ${shown === undefined ? message : shown ? text : "n/a"}\n`);
  }
  if (arrived) {
    terminal.write("RservTest: the row has arrived\n");
    return;
  }
  throw new ErserverError(
    "ERS-801",
    "the row is not on the slave behind a sync that should have brought it",
    {
      subject: text,
      remedy: "See whether table test is the one that was made by InitRservTest, on both sides.",
    },
  );
}

async function screen(replication: ReplicateOptions, terminal: Terminal): Promise<void> {
  const { stdin } = process;
  if (!stdin.isTTY || !terminal.live)
    throw new ErserverError("ERS-106", "RservTest needs a terminal", {
      remedy: "Run it in one, or without: RservTest --headless.",
    });
  const { master, slave, signal } = replication;
  let state = initialScreen(describeConninfo(master.conninfo), describeConninfo(slave.conninfo));
  const block = new LiveBlock(terminal);
  const show = (next: ScreenState): void => {
    state = next;
    block.update(renderScreen(state, terminal.paint));
  };
  show(state);
  emitKeypressEvents(stdin);
  stdin.setRawMode(true);
  stdin.resume();
  try {
    await new Promise<void>((resolve) => {
      signal.addEventListener("abort", () => resolve());
      const onPress = async (button: Exclude<Button, "Quit">): Promise<void> => {
        if (state.text === "" && button !== "Replicate")
          return show({ ...state, message: "type a text first" });
        show({ ...state, busy: true });
        const result = await press(button, state.text, replication).catch((error: unknown) => {
          const { code, message, remedy } = toErserverError(error);
          return { message: `${code} ${message} → ${remedy}`, shown: undefined };
        });
        show({ ...state, ...result, shown: result.shown ?? state.shown, busy: false });
      };
      stdin.on("keypress", (_character: string, key: Key) => {
        const { state: next, pressed } = onKey(state, key);
        show(next);
        if (pressed === "Quit") resolve();
        else if (pressed !== undefined) void onPress(pressed);
      });
    });
  } finally {
    stdin.setRawMode(false);
    stdin.pause();
    block.print("");
  }
}
