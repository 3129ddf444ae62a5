import { Command } from "commander";
import { formatLsn } from "../../change/lsn.ts";
import { ErserverError } from "../../errors/erserver-error.ts";
import { formatCount, plural } from "../../observability/figures.ts";
import { createLogger } from "../../observability/log.ts";
import { type TableComparison, verifyTarget } from "../../verify/verify.ts";
import { type ConfigOptions, configFor, forEachTarget, withConfig, withFullRefresh } from "../options.ts";
import { LiveBlock } from "../render/live-block.ts";
import type { Paint } from "../render/paint.ts";
import { renderTable } from "../render/table.ts";
import type { Terminal } from "../terminal.ts";

interface VerifyOptions extends ConfigOptions {
  readonly json?: boolean;
}

export function verifyCommand(terminal: Terminal): Command {
  return withFullRefresh(withConfig(new Command("verify")))
    .summary("compare the content of all tables")
    .description(
      "Compare the content of every table of source and targets, at one position, while replication goes on. When no erserver runs, what the " +
        "target misses up to there is applied first; tables that were never copied are not. " +
        "Exit code 1 when a table differs.",
    )
    .option("--json", "print a JSON line for each target")
    .addHelpText("after", "\nExample: erserver verify --json | jq .equal")
    .action((options: VerifyOptions) => verify(options, terminal));
}

type Verification = Awaited<ReturnType<typeof verifyTarget>>;

async function verify(options: VerifyOptions, terminal: Terminal): Promise<void> {
  const config = configFor(options);
  const log = createLogger({ level: config.logLevel });
  const { interrupted: signal } = terminal;
  const progress = new LiveBlock(terminal);
  await forEachTarget(
    config,
    "in turn",
    async (target) => {
      let compared = 0;
      const onTable = ({ table }: TableComparison): void => {
        compared++;
        if (options.json !== true)
          progress.update([`${target.name}: ${plural(compared, "table")} compared, ${table}`]);
      };
      let result: Verification;
      try {
        result = await verifyTarget({ config, target, log, signal, onTable });
      } finally {
        progress.update([]);
      }
      if (signal.aborted) return;
      terminal.write(
        options.json === true ? jsonLine(target.name, result) : report(target.name, result, terminal.paint),
      );
      const different = result.tables.filter((table) => !table.equal);
      if (different.length > 0) throw differs(target.name, different);
    },
    signal,
  );
}

function report(target: string, { lsn, tables }: Verification, paint: Paint): string {
  const different = tables.filter((table) => !table.equal);
  const position = `compared at ${formatLsn(lsn)}`;
  if (different.length === 0) {
    const rows = tables.reduce((sum, table) => sum + table.sourceRows, 0);
    return `${target}: ${plural(tables.length, "table")} (${plural(rows, "row")}) ${paint.good("equal")}, ${position}\n`;
  }
  const rows = different.map((table) => [
    table.table,
    formatCount(table.sourceRows),
    formatCount(table.targetRows),
  ]);
  return (
    `${target}: ${different.length} of ${plural(tables.length, "table")} ${paint.bad("different")}, ${position}\n` +
    renderTable(
      [{ head: "table" }, { head: "source rows", align: "right" }, { head: "target rows", align: "right" }],
      rows,
      paint,
    ) +
    different
      .filter((table) => table.insertsOnly)
      .map(({ table }) => `${table} has no row identity: its updates and deletes are not replicated\n`)
      .join("") +
    different
      .flatMap(({ table, columns }) => (columns === undefined ? [] : [{ table, columns }]))
      .map(
        ({ table, columns }) =>
          `${table} is replicated by column: an UPDATE that changes none of ${columns.join(", ")} is not\n`,
      )
      .join("")
  );
}

function differs(target: string, different: readonly TableComparison[]): ErserverError {
  const names = different.map(({ table }) => table).join(", ");
  return new ErserverError("ERS-801", `content differs from the source: ${names}`, {
    subject: target,
    remedy: different.every(({ columns }) => columns !== undefined)
      ? `To have all of their changes: MasterAddTable SOURCEDB TABLE, without a column, for ${names}.`
      : different.every((table) => table.insertsOnly)
        ? `Give the tables a primary key or REPLICA IDENTITY FULL on the source, so that updates and deletes arrive from then on; to fill them again: erserver drop --target ${target}, empty its tables, erserver run.`
        : "Something else has written to the target, or a conflict was resolved there (see table erserver.conflict). " +
          `To fill it again: erserver drop --target ${target}, empty its tables, erserver run.`,
  });
}

function jsonLine(target: string, { lsn, tables }: Verification): string {
  const equal = tables.every((table) => table.equal);
  return `${JSON.stringify({ target, position: formatLsn(lsn), equal, tables })}\n`;
}
