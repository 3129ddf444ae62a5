/** What a tutorial page has a reader do, and what it says that he sees. */

export const MACHINES = ["master", "slave"] as const;
export type MachineName = (typeof MACHINES)[number];

export interface TutorialBlock {
  /** The heading above, without its `##`. */
  readonly section: string;
  /** Where it is run: the bold line `**On the master**`, `**On the slave**` or `**On both machines**` above says so. */
  readonly machines: readonly MachineName[];
  readonly commands: string;
  /** What is printed; empty when no `text` block follows. */
  readonly output: string;
  /** Of the page, where the commands begin. */
  readonly line: number;
}

const WHERE: Readonly<Record<string, readonly MachineName[]>> = {
  "On the master": ["master"],
  "On the slave": ["slave"],
  "On both machines": MACHINES,
};

interface Fence {
  readonly language: string;
  readonly text: string;
  readonly line: number;
}

/**
 * The `sh` and `crontab` blocks of a page in their order, each with the `text` block that follows it directly. Blocks in other languages are for the
 * reader alone. Throws for commands of which the page does not say where to run them.
 */
export function parseTutorial(page: string): TutorialBlock[] {
  const blocks: TutorialBlock[] = [];
  let section = "";
  let machines: readonly MachineName[] = [];
  let awaitsOutput = false;
  for (const part of partsOf(page)) {
    if (typeof part !== "string") {
      const commands = commandsOf(part);
      if (commands !== undefined) {
        if (machines.length === 0)
          throw new Error(`line ${part.line}: the page does not say where to run this`);
        blocks.push({ section, machines, commands, output: "", line: part.line });
      } else if (part.language === "text" && awaitsOutput) {
        const block = blocks.pop() as TutorialBlock;
        blocks.push({ ...block, output: part.text });
      }
      awaitsOutput = commands !== undefined;
      continue;
    }
    if (part.trim() === "") continue;
    awaitsOutput = false;
    const heading = /^##+ (.*)$/.exec(part)?.[1];
    if (heading !== undefined) {
      section = heading;
      machines = [];
    }
    machines = WHERE[/^\*\*(.*)\*\*$/.exec(part)?.[1] ?? ""] ?? machines;
  }
  return blocks;
}

/** Of a `crontab` line, what cron hands to the shell. */
function commandsOf({ language, text }: Fence): string | undefined {
  if (language === "sh") return text;
  return language === "crontab" ? text.replace(/^(?:\S+ ){5}/, "") : undefined;
}

/** Lines, and the fenced blocks between them; those of a quotation are among them, without its `>`. */
function* partsOf(page: string): Generator<string | Fence> {
  const lines = page.split("\n");
  for (let index = 0; index < lines.length; index++) {
    const opening = /^((?:> )?)```(\w+)$/.exec(lines[index] ?? "");
    if (opening === null) {
      yield (lines[index] ?? "").replace(/^>(?: |$)/, "");
      continue;
    }
    const [, quote = "", language = ""] = opening;
    const line = index + 2;
    const text: string[] = [];
    for (index++; lines[index] !== `${quote}\`\`\``; index++) {
      if (index >= lines.length) throw new Error(`line ${line}: the block does not end`);
      text.push((lines[index] ?? "").slice(quote.length));
    }
    yield { language, text: text.join("\n"), line };
  }
}

/**
 * What was printed, with each line that is what the page has there replaced by the page's: `…` stands for anything within a line, and
 * spaces at the end of a line do not count. So it is equal to the page's text exactly when a reader sees that.
 */
export function likePage(printed: string, page: string): string {
  const expected = page.split("\n");
  return printed
    .split("\n")
    .map((text, index) => {
      const line = text.trimEnd();
      const wanted = expected[index] ?? "";
      return patternOf(wanted).test(line) ? wanted : line;
    })
    .join("\n");
}

function patternOf(line: string): RegExp {
  const parts = line.trimEnd().split("…");
  return new RegExp(`^${parts.map((part) => part.replaceAll(/[$()*+.?[\\\]^{|}]/g, "\\$&")).join(".+")}$`);
}
