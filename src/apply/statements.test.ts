import { describe, expect, test } from "vitest";
import { catalogColumn, catalogTable } from "../../test/support/catalog.ts";
import type { CatalogColumn, CatalogTable } from "../postgres/catalog.ts";
import {
  copyInStatement,
  deleteSet,
  deleteStatement,
  insertSet,
  insertStatement,
  keyAsJson,
  ofAllRows,
  Parameters,
  rewriteStatement,
  type StatementText,
  truncateStatement,
  updateSet,
  updateStatement,
} from "./statements.ts";
import type { PlannedColumn, TablePlan } from "./table-plan.ts";

/** Columns in the order of the row image; `key` names those that find the row. */
function plan(
  columns: readonly CatalogColumn[],
  key: readonly string[],
  change: Partial<CatalogTable> = {},
): TablePlan {
  const target = catalogTable({ columns, ...change });
  const planned = columns.map((column, index): PlannedColumn | undefined =>
    column.generated ? undefined : { index, target: column },
  );
  const written = planned.filter((column) => column !== undefined);
  return {
    relation: { id: 1, schema: "public", name: "t", replicaIdentity: "default", columns: [] },
    target,
    label: "public.t",
    written,
    key: key.map((name) => written.find((column) => column.target.name === name) as PlannedColumn),
    wholeRow: key.length === 0,
    hasColumnsOfItsOwn: false,
    sharedBy: 1,
  };
}

const column = catalogColumn;
const two = plan([column("id", { typeOid: 20 }), column("Va lue", { typeOid: 25 })], ["id"]);
const TABLE = '"public"."t"';

describe("statements", () => {
  test("insert every column of the image, with the target's types", () => {
    expect(insertStatement(two)).toEqual({
      sql: `insert into ${TABLE} ("id", "Va lue") values ($1, $2)`,
      types: [20, 25],
      parameters: [
        { image: "new", index: 0 },
        { image: "new", index: 1 },
      ],
    });
  });

  test("insert the source's value of an identity column, leave generated ones out, and a row of no columns", () => {
    const numbered = plan(
      [column("id", { identity: "a" }), column("twice", { generated: true }), column("v")],
      ["id"],
    );
    expect(insertStatement(numbered).sql).toBe(
      `insert into ${TABLE} ("id", "v") overriding system value values ($1, $2)`,
    );
    expect(insertStatement(numbered).parameters.map(({ index }) => index)).toEqual([0, 2]);
    expect(insertStatement(plan([], [])).sql).toBe(`insert into ${TABLE} default values`);
  });

  test("update what was sent; the key only when the source sent an old one", () => {
    expect(updateStatement(two, two.written, "new")).toMatchObject({
      sql: `update only ${TABLE} set "Va lue" = $1 where "id" operator(pg_catalog.=) $2`,
      parameters: [
        { image: "new", index: 1 },
        { image: "new", index: 0 },
      ],
    });
    expect(updateStatement(two, two.written, "old")).toMatchObject({
      sql: `update only ${TABLE} set "id" = $1, "Va lue" = $2 where "id" operator(pg_catalog.=) $3`,
      parameters: [{ image: "new" }, { image: "new" }, { image: "old", index: 0 }],
    });
    expect(updateStatement(two, two.written.slice(0, 1), "old").sql).toBe(
      `update only ${TABLE} set "id" = $1 where "id" operator(pg_catalog.=) $2`,
    );
  });

  test("an update that sets nothing touches the row all the same, so that a missing one is seen (T15)", () => {
    expect(updateStatement(plan([column("id")], ["id"]), [], "new").sql).toBe(
      `update only ${TABLE} set "id" = "id" where "id" operator(pg_catalog.=) $1`,
    );
  });

  test("an ALWAYS identity column is not set but must be as the source has it, also when it is the key", () => {
    const other = plan([column("id"), column("number", { identity: "a" })], ["id"]);
    expect(updateStatement(other, other.written, "new").sql).toBe(
      `update only ${TABLE} set "id" = "id" where "id" operator(pg_catalog.=) $2 and "number" operator(pg_catalog.=) $1`,
    );
    const key = plan([column("id", { identity: "a" }), column("v")], ["id"]);
    expect(updateStatement(key, key.written, "new").sql).toBe(
      `update only ${TABLE} set "v" = $1 where "id" operator(pg_catalog.=) $2`,
    );
    expect(updateStatement(key, key.written, "old")).toMatchObject({
      sql: expect.stringMatching(
        /set "v" = \$1 where "id" operator\(pg_catalog\.=\) \$3 and "id" operator\(pg_catalog\.=\) \$2$/,
      ),
      parameters: [
        { image: "new", index: 1 },
        { image: "new", index: 0 },
        { image: "old", index: 0 },
      ],
    });
  });

  test("a row of nothing but an ALWAYS identity is written anew", () => {
    const alone = plan([column("id", { identity: "a" })], ["id"]);
    expect(updateStatement(alone, alone.written, "old").sql).toBe(
      rewriteStatement(alone, alone.written, "old").sql,
    );
  });

  test("writing anew keeps what was not sent and what only the target has, and leaves out what it computes", () => {
    const written = plan(
      [column("id", { identity: "a" }), column("big"), column("v"), column("twice", { generated: true })],
      ["id"],
    );
    const sent = [written.written[0], written.written[2]] as PlannedColumn[];
    expect(rewriteStatement(written, sent, "old").sql).toBe(
      `with old as (delete from only ${TABLE} where "id" operator(pg_catalog.=) $3 returning *) insert into ${TABLE} ("id", "big", "v") overriding system value select $1, old."big", $2 from old`,
    );
  });

  test("a whole row is found by its image, one of several equal ones, in any partition", () => {
    const bag = plan([column("a"), column("b")], []);
    const same = `row("a", "b")::record operator(pg_catalog.*=) row($1, $2)::record`;
    expect(deleteStatement(bag).sql).toBe(
      `delete from only ${TABLE} where ctid = (select ctid from only ${TABLE} where ${same} limit 1)`,
    );
    const parted = plan([column("a"), column("b")], [], { partitioned: true });
    expect(deleteStatement(parted).sql).toBe(
      `delete from ${TABLE} where (tableoid, ctid) = (select tableoid, ctid from ${TABLE} where ${same} limit 1)`,
    );
    expect(updateStatement(bag, bag.written, "old").parameters.map(({ image }) => image)).toEqual([
      "new",
      "new",
      "old",
      "old",
    ]);
  });

  test("the key is compared by the operator of its type, wherever that is", () => {
    const cited = plan(
      [column("k", { equalitySchema: "ext" }), column("e", { equalitySchema: null })],
      ["k", "e"],
    );
    expect(deleteStatement(cited).sql).toBe(
      `delete from only ${TABLE} where "k" operator(ext.=) $1 and "e" = $2`,
    );
  });

  test("truncate names each table once, a partitioned one with its partitions", () => {
    const parted = plan([column("a")], [], { name: "p", partitioned: true });
    expect(truncateStatement([two, parted, two], true)).toBe(
      `truncate only ${TABLE}, "public"."p" restart identity`,
    );
  });

  test("the key of a change is shown as an object of texts", () => {
    const parameters = new Parameters();
    expect(keyAsJson(two, "old", parameters)).toBe(
      "pg_catalog.jsonb_object(array['id']::text[], array[($1)::text]::text[])",
    );
    expect(parameters.sources).toEqual([{ image: "old", index: 0 }]);
  });
});

describe("statements for many rows", () => {
  const rows = plan(
    [
      column("id", { typeOid: 20, typeName: "bigint" }),
      column("c", { typeOid: 1042, typeName: "character" }),
      column("n", { typeName: "bigint", identity: "a" }),
    ],
    ["id"],
  );

  test("take an array for each column, and types of their own length", () => {
    expect(updateSet(rows, rows.written)).toEqual({
      sql: `update only ${TABLE} set "c" = "erserver rows"."1" from unnest($1::pg_catalog.bpchar[], $2::bigint[], $3::bigint[]) as "erserver rows"("1", "2", "3") where "id" operator(pg_catalog.=) "erserver rows"."3" and "n" operator(pg_catalog.=) "erserver rows"."2"`,
      types: [0, 0, 0],
      parameters: [
        { image: "new", index: 1, elements: { typeOid: 1042, delimiter: "," } },
        { image: "new", index: 2, elements: { typeOid: 23, delimiter: "," } },
        { image: "new", index: 0, elements: { typeOid: 20, delimiter: "," } },
      ],
    });
    expect(deleteSet(rows)?.sql).toBe(
      `delete from only ${TABLE} using unnest($1::bigint[]) as "erserver rows"("1") where "id" operator(pg_catalog.=) "erserver rows"."1"`,
    );
    expect(copyInStatement(rows, true)).toBe(`copy ${TABLE} ("id", "c", "n") from stdin (format binary)`);
    expect(copyInStatement(rows, false)).toBe(`copy ${TABLE} ("id", "c", "n") from stdin`);
  });

  test("insert rows from arrays", () => {
    expect(insertSet(rows)?.sql).toBe(
      `insert into ${TABLE} ("id", "c", "n") overriding system value select "erserver rows"."1", "erserver rows"."2", "erserver rows"."3" from unnest($1::bigint[], $2::pg_catalog.bpchar[], $3::bigint[]) as "erserver rows"("1", "2", "3")`,
    );
    expect(insertSet(plan([], []))).toBeUndefined();
  });

  test("fail by themselves when they do not affect as many rows as there are elements", () => {
    const { sql, types, parameters } = deleteSet(rows) as StatementText;
    expect(ofAllRows({ sql, types, parameters })).toEqual({
      sql: `with changed as (${sql} returning 1) select 1 / (count(*) = pg_catalog.cardinality($1))::int from changed`,
      types,
      parameters,
    });
  });

  test("are not for arrays of arrays or of rows, nor where nothing can be set", () => {
    const composites = plan([column("id"), column("p", { typeName: "pair", composite: true })], ["id"]);
    expect(updateSet(composites, composites.written)).toBeUndefined();
    expect(insertSet(composites)).toBeUndefined();
    const arrays = plan([column("id"), column("a", { typeName: "integer[]" })], ["id"]);
    expect(updateSet(arrays, arrays.written)).toBeUndefined();
    expect(updateSet(arrays, arrays.written.slice(0, 1))).toBeDefined();
    expect(insertSet(arrays)).toBeUndefined();
    expect(deleteSet(plan([column("a", { typeName: "integer[]" })], ["a"]))).toBeUndefined();
    const fixed = plan([column("id", { identity: "a" })], ["id"]);
    expect(updateSet(fixed, fixed.written)).toBeUndefined();
  });
});
