import { expect, test } from "vitest";
import { freshDatabase, sharedCluster } from "../../test/support/clusters.ts";
import { modifierText, narrows } from "./type-modifier.ts";

const CASES: readonly (readonly [type: string, narrower: string, wider: string])[] = [
  ["numeric(12,4)", "numeric(12,2)", "numeric(14,4)"],
  ["numeric(12,4)", "numeric(11,4)", "numeric"],
  ["numeric", "numeric(1000,500)", "numeric"],
  ["numeric(5,2)[]", "numeric(5,1)[]", "numeric(6,2)[]"],
  ["varchar(10)", "varchar(9)", "varchar(11)"],
  ["varchar", "varchar(1000)", "varchar"],
  ["char(3)", "char(4)", "bpchar"],
  ["bit(3)", "bit(4)", "bit(3)"],
  ["bit varying(3)", "bit varying(2)", "bit varying"],
  ["timestamp", "timestamp(3)", "timestamp(6)"],
  ["timestamptz(3)", "timestamptz(0)", "timestamptz"],
  ["time(2)", "time(1)", "time(3)"],
  ["timetz", "timetz(5)", "timetz"],
  ["interval", "interval(2)", "interval"],
  ["interval", "interval day", "interval"],
];

test("a column that is narrower on the target is told from one that is not, by the server's own modifiers", async () => {
  await using database = await freshDatabase(sharedCluster("source"));
  for (const [source, narrower, wider] of CASES) {
    await database.query(`drop table if exists t; create table t (s ${source}, n ${narrower}, w ${wider})`);
    const columns = await database.query<{ type: number; modifier: number; text: string }>(
      "select atttypid::int as type, atttypmod as modifier, format_type(atttypid, atttypmod) as text from pg_attribute where attrelid = 't'::regclass and attnum > 0 order by attnum",
    );
    const [s, n, w] = columns as [(typeof columns)[0], (typeof columns)[0], (typeof columns)[0]];
    expect([source, narrower, narrows(s.type, s.modifier, n.modifier)]).toEqual([source, narrower, true]);
    expect([source, wider, narrows(s.type, s.modifier, w.modifier)]).toEqual([source, wider, false]);
    expect(narrows(s.type, s.modifier, s.modifier)).toBe(false);
    for (const { type, modifier, text } of columns)
      if (!source.startsWith("interval")) expect(text).toContain(modifierText(type, modifier));
  }
});
