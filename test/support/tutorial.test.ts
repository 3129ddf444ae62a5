import { describe, expect, it, test } from "vitest";
import { likePage, parseTutorial } from "./tutorial.ts";

const PAGE = `# Tutorial

**On the master**

\`\`\`yaml
not: run
\`\`\`

## 1. Dump

**On both machines**

\`\`\`sh
export X=1
\`\`\`

**On the master**

\`\`\`sh
pg_dump booktown \\
  > booktown.db
echo done
\`\`\`

\`\`\`text
done
\`\`\`

\`\`\`crontab
*/15 * * * * ~/sync --quiet
\`\`\`

A line of pg_hba.conf, which nobody prints:

\`\`\`text
host booktown pma 192.168.1.65/32 scram-sha-256
\`\`\`

> **It does not run**
>
> **On the slave**
>
> \`\`\`sh
> psql -l
> \`\`\`
>
> \`\`\`text
> psql: error:
> 	Is it running?
> \`\`\`
`;

describe("the commands of a page", () => {
  it("come in order, with section, machines, output and line", () => {
    expect(parseTutorial(PAGE)).toEqual([
      { section: "1. Dump", machines: ["master", "slave"], commands: "export X=1", output: "", line: 14 },
      {
        section: "1. Dump",
        machines: ["master"],
        commands: "pg_dump booktown \\\n  > booktown.db\necho done",
        output: "done",
        line: 20,
      },
      {
        section: "1. Dump",
        machines: ["master"],
        commands: "~/sync --quiet",
        output: "",
        line: 30,
      },
      {
        section: "1. Dump",
        machines: ["slave"],
        commands: "psql -l",
        output: "psql: error:\n\tIs it running?",
        line: 44,
      },
    ]);
  });

  it("are refused when the page does not say where to run them: a heading ends what was said before", () => {
    expect(() => parseTutorial("**On the slave**\n\n## 2. Carry\n\n```sh\nls\n```\n")).toThrow("line 6");
  });

  it("are refused when their block does not end", () => {
    expect(() => parseTutorial("**On the slave**\n\n```sh\nls\n")).toThrow("line 4: the block does not end");
  });
});

describe("what was printed is like the page", () => {
  test.for([
    ["the same", "a\nb", "a\nb"],
    ["spaces at the end", " id \n----\n  1  ", " id\n----\n  1"],
    ["a placeholder", "sync 17 of booktown-3f.", "sync … of booktown-…."],
  ])("%s", ([, printed, page]) => {
    expect(likePage(printed as string, page as string)).toBe(page);
  });

  test.for([
    ["another line", "a\nc", "a\nb"],
    ["a line more", "a\nb", "a"],
    ["a line less", "a", "a\nb"],
    ["a placeholder for nothing", "sync ", "sync …"],
    ["a placeholder over lines", "a\nb", "…"],
    ["a dot that is any character", "axb", "a.b"],
  ])("unless there is %s", ([, printed, page]) => {
    expect(likePage(printed as string, page as string)).not.toBe(page);
  });
});
