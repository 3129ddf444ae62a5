import { readFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ERROR_CODES, type ErrorCode } from "../../src/errors/codes.ts";
import { BuiltCli } from "../support/built-cli.ts";
import { openSession } from "../support/clusters.ts";
import { expectEqualTables } from "../support/compare.ts";
import { withoutProgress } from "../support/progress-lines.ts";
import {
  likePage,
  type MachineName,
  MACHINES,
  parseTutorial,
  type TutorialBlock,
} from "../support/tutorial.ts";
import { clientPrograms, Machines, type Ran } from "../support/tutorial-machines.ts";

const PAGE = "docs/tutorial-booktown.md";
const blocks = parseTutorial(readFileSync(path.join(import.meta.dirname, "../..", PAGE), "utf8"));
const names = [...new Set(blocks.map(({ section }) => section))];
const sections = names.map((name) => [name, blocks.filter(({ section }) => section === name)] as const);
const programs = await clientPrograms();

/** Behind it both databases are the same; behind the others nothing of erserver is left in them. */
const LAST_STEP = /^13\./;
const UNDO = /^Undo|^With a configuration file/;

// Elsewhere the loopback network has one address alone.
describe.skipIf(programs === undefined || process.platform !== "linux")(
  "S48: the tutorial does what it says, command by command",
  () => {
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

    let printed = "";
    const on = async (name: MachineName, commands: string): Promise<Ran> => {
      const ran = await machines.of(name).run({ commands });
      printed += ran.output;
      return ran;
    };

    /** Runs the commands where they belong; what they print and how they end is what the page shows. */
    const follow = async (block: TutorialBlock): Promise<void> => {
      for (const name of block.machines) {
        const { output, exit } = await on(name, block.commands);
        const where = `${PAGE}:${block.line}`;
        expect(`${where}\n${likePage(withoutProgress(output), block.output)}`).toBe(
          `${where}\n${block.output}`,
        );
        const code = /^ERS-\d+(?=  )/m.exec(block.output)?.[0];
        if (code !== undefined) expect(exit, where).toBe(ERROR_CODES[code as ErrorCode].exit);
        else if (/^\w+(?::\S+)?: error:|ERROR:  /m.test(block.output)) expect(exit, where).not.toBe(0);
        else expect(exit, where).toBe(0);
      }
    };

    let failed: string | undefined;
    it.each(sections)("S48: %s", { timeout: 300_000 }, async (section, commands) => {
      // What comes after a step that went wrong goes wrong as well.
      expect(failed, "an earlier section").toBeUndefined();
      failed = section;
      for (const block of commands) await follow(block);
      if (LAST_STEP.test(section)) {
        const { master, slave } = { master: machines.of("master"), slave: machines.of("slave") };
        await expectEqualTables(master.url("booktown"), slave.url("booktown"));
      }
      if (UNDO.test(section))
        for (const name of MACHINES) await expectNothingLeft(machines.of(name).url("booktown"));
      failed = undefined;
    });

    describe("S23, S48: the line of step 6 lets pma in with its password, and nobody else", () => {
      it("is the exact line", async () => {
        const { output } = await on("slave", `tail -n 1 "$(psql -Atc 'SHOW hba_file' postgres)"`);
        expect(output).toBe("host booktown pma 192.168.1.65/32 scram-sha-256");
      });

      const init = `~/erserver/rserv/SlaveInit --host="$SLAVE"`;
      const line = "Add a line to the server's pg_hba.conf and reload it: host";
      it.each([
        [
          "a wrong password",
          `PGPASSWORD=guess ${init} --user=pma booktown`,
          "ERS-202",
          "Check the role, and its password",
        ],
        [
          "no password",
          `PGPASSFILE=/nowhere ${init} --user=pma booktown`,
          "ERS-202",
          "Check the role, and its password",
        ],
        [
          "another database",
          `${init} --user=pma postgres`,
          "ERS-205",
          `${line} postgres pma 192.168.1.65/32 scram-sha-256`,
        ],
        [
          "another role",
          `${init} --user=mark booktown`,
          "ERS-205",
          `${line} booktown mark 192.168.1.65/32 scram-sha-256`,
        ],
      ])("%s is refused, and the message says what to do", async (_, command, code, remedy) => {
        const { output, exit } = await on("master", command);
        expect(exit).toBe(3);
        expect(output).toContain(code);
        expect(output).toContain(`→ ${remedy}`);
      });
    });

    it("S45, T16: pma is no superuser, and its password is in the password file and nowhere else", async () => {
      for (const name of MACHINES) {
        const roles = await on(
          name,
          `psql -Atc "SELECT rolsuper, rolreplication FROM pg_roles WHERE rolname = 'pma'" postgres`,
        );
        expect(roles.output).toBe("f|f");
      }
      const { output } = await machines.of("master").run({ commands: "cat ~/.pgpass" });
      const password = /^\*:\*:booktown:pma:(\S{24})$/.exec(output)?.[1] ?? "";
      expect(password).not.toBe("");
      const logs = MACHINES.map((name) => machines.of(name).cluster.log());
      for (const text of [printed, ...logs]) expect(text).not.toContain(password);
    });

    it("S48: the page has all thirteen steps and the way back", () => {
      const numbers = sections
        .map(([section]) => /^\d+(?=\.)/.exec(section)?.[0])
        .filter((number) => number !== undefined);
      expect(numbers).toEqual(Array.from({ length: 13 }, (_, index) => String(index + 1)));
      expect(sections.some(([section]) => UNDO.test(section))).toBe(true);
    });
  },
);

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
