import { readFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ERROR_CODES, type ErrorCode } from "../../src/errors/codes.ts";
import { BuiltCli } from "../support/built-cli.ts";
import { openSession } from "../support/clusters.ts";
import { expectEqualTables } from "../support/compare.ts";
import { likePage, parseTutorial, type TutorialBlock } from "../support/tutorial.ts";
import { clientPrograms, Machines } from "../support/tutorial-machines.ts";

const PAGE = "docs/tutorial-booktown.md";
const blocks = parseTutorial(readFileSync(path.join(import.meta.dirname, "../..", PAGE), "utf8"));
const names = [...new Set(blocks.map(({ section }) => section))];
const sections = names.map((name) => [name, blocks.filter(({ section }) => section === name)] as const);
const programs = await clientPrograms();

/** Up to here both databases are said to be the same; from the next section on erserver is taken away again. */
const LAST_STEP = /^13\./;
const UNDO = /^Undo/;

describe.skipIf(programs === undefined)("S48: the tutorial does what it says, command by command", () => {
  let cli: BuiltCli;
  let machines: Machines;

  beforeAll(async () => {
    cli = await BuiltCli.build();
    machines = await Machines.start(programs ?? "", cli.folder);
  });

  afterAll(async () => {
    await machines?.[Symbol.asyncDispose]();
    await cli?.[Symbol.asyncDispose]();
  });

  let failed: string | undefined;
  it.each(sections)("S48: %s", { timeout: 300_000 }, async (section, commands) => {
    // What comes after a step that went wrong goes wrong as well.
    expect(failed, "an earlier section").toBeUndefined();
    failed = section;
    for (const block of commands) await follow(block, machines);
    if (LAST_STEP.test(section)) {
      const [master, slave] = (["master", "slave"] as const).map((name) => machines.of(name).url("booktown"));
      await expectEqualTables(master as string, slave as string);
    }
    if (UNDO.test(section))
      for (const name of ["master", "slave"] as const)
        await expectNothingLeft(machines.of(name).url("booktown"));
    failed = undefined;
  });

  it("S48: the page has all thirteen steps and the way back", () => {
    const numbers = sections
      .map(([section]) => /^\d+(?=\.)/.exec(section)?.[0])
      .filter((number) => number !== undefined);
    expect(numbers).toEqual(Array.from({ length: 13 }, (_, index) => String(index + 1)));
    expect(sections.some(([section]) => UNDO.test(section))).toBe(true);
  });
});

/** Runs the commands where they belong; what they print and how they end is what the page shows. */
async function follow(block: TutorialBlock, machines: Machines): Promise<void> {
  for (const name of block.machines) {
    const { output, exit } = await machines.of(name).run(block);
    const where = `${PAGE}:${block.line}`;
    expect(`${where}\n${likePage(output, block.output)}`).toBe(`${where}\n${block.output}`);
    const code = /^ERS-\d+(?=  )/m.exec(block.output)?.[0];
    if (code !== undefined) expect(exit, where).toBe(ERROR_CODES[code as ErrorCode].exit);
    else if (/^\w+(?::\S+)?: error:|ERROR:  /m.test(block.output)) expect(exit, where).not.toBe(0);
    else expect(exit, where).toBe(0);
  }
}

async function expectNothingLeft(url: string): Promise<void> {
  const session = await openSession(url);
  try {
    const { rows } = await session.query(`
      select 'schema ' || nspname as what from pg_namespace where nspname = 'erserver'
      union all select 'trigger ' || tgname from pg_trigger where tgname like 'erserver%'
      union all select 'publication ' || pubname from pg_publication
      union all select 'slot ' || slot_name from pg_replication_slots
      union all select 'origin ' || roname from pg_replication_origin`);
    expect(rows).toEqual([]);
  } finally {
    await session.end();
  }
}
