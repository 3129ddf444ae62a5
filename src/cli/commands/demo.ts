import path from "node:path";
import { Command, InvalidArgumentError } from "commander";
import { runDemo } from "../../demo/demo.ts";
import { DemoScreen } from "../render/demo-screen.ts";
import type { Terminal } from "../terminal.ts";

interface DemoCommandOptions {
  readonly keep?: boolean;
  readonly sourceMajor: number;
  readonly targetMajor: number;
}

export function demoCommand(terminal: Terminal): Command {
  return new Command("demo")
    .summary("show it at work, on servers of its own")
    .description(
      "Show replication from New York to London and Tokyo, with an outage, on PostgreSQL servers that it starts itself " +
        "and removes at the end. Takes less than a minute; needs no configuration.",
    )
    .option("--keep", "leave servers and replication running at the end, until Ctrl-C")
    .option("--source-major <major>", "PostgreSQL version of the source", major, 15)
    .option("--target-major <major>", "PostgreSQL version of the targets", major, 18)
    .addHelpText("after", "\nExample: erserver demo --keep")
    .action((options: DemoCommandOptions) => demo(options, terminal));
}

async function demo(
  { keep = false, sourceMajor, targetMajor }: DemoCommandOptions,
  terminal: Terminal,
): Promise<void> {
  const { interrupted: signal } = terminal;
  const screen = new DemoScreen(terminal);
  signal.addEventListener("abort", () => screen.note("Stopping the servers ..."));
  await runDemo({ keep, sourceMajor, targetMajor, screen, signal, program: programName() });
}

function major(value: string): number {
  if (!/^\d{2}$/.test(value)) throw new InvalidArgumentError("A major version is needed, such as 15.");
  return Number(value);
}

/** How to call us again from the same folder. */
function programName(): string {
  const script = process.argv[1] ?? "erserver";
  return path.extname(script) === "" ? path.basename(script) : `node ${path.relative(process.cwd(), script)}`;
}
