import { ErserverError } from "../errors/erserver-error.ts";
import { someOf } from "../observability/figures.ts";
import { tableLabel } from "./catalog.ts";
import type { ControlSession } from "./connect.ts";

/** Run on one side, it prints what sets the sequences of the other. */
const SET_VALUES = `SELECT format('SELECT setval(%L, %s, %L);', format('%I.%I', schemaname, sequencename), coalesce(last_value, start_value), last_value IS NOT NULL) FROM pg_sequences WHERE schemaname <> 'erserver';`;

/** ERS-308 when the source has sequences, whose values are not replicated. */
export async function sequencesLeftOut(source: ControlSession): Promise<ErserverError[]> {
  const rows = await source.query<{ schema: string; name: string }>(
    "select schemaname as schema, sequencename as name from pg_catalog.pg_sequences where schemaname <> 'erserver' order by 1, 2",
  );
  if (rows.length === 0) return [];
  const labels = rows.map(({ schema, name }) => tableLabel(schema, name));
  return [
    new ErserverError("ERS-308", `values of sequences are not replicated: ${someOf(labels)}`, {
      subject: labels[0] ?? "",
      remedy: `Before anything else writes to the target, run there what this prints on the source: ${SET_VALUES}`,
    }),
  ];
}
