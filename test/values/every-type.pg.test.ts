/** Hard values stand in the files beside this one. Here the server is asked which types it has, so that none is forgotten. */
import { type Client, escapeIdentifier } from "pg";
import { expect, test } from "vitest";
import { quoteLiteral } from "../../src/quote/literal.ts";
import { openSession, sharedCluster, type Side } from "../support/clusters.ts";
import { startReplication } from "../support/pipeline-context.ts";
import { TRAVEL, travelConfig } from "./value-history.ts";

const SAMPLES: Readonly<Record<string, string>> = {
  aclitem: "=r/postgres",
  bit: "10100000001",
  bool: "true",
  box: "(1,1),(0,-0.5)",
  bpchar: "ab  ",
  bytea: "\\x00ff5c27",
  char: "c",
  cid: "4294967295",
  cidr: "2001:db8::/32",
  circle: "<(0.1,-2),3>",
  date: "0044-03-15 BC",
  datemultirange: "{[2000-01-01,2000-02-29),[2001-01-01,infinity)}",
  daterange: "[2000-01-01,infinity)",
  float4: "1e-45",
  float8: "0.30000000000000004",
  inet: "10.1.2.3/8",
  int2: "-32768",
  int2vector: "1 -2 32767",
  int4: "-2147483648",
  int4multirange: "{[1,2),[5,)}",
  int4range: "[-2147483648,5)",
  int8: "-9223372036854775808",
  int8multirange: "{(,1),[5,9223372036854775807)}",
  int8range: "[1,9223372036854775807)",
  interval: "-1 year +2 days -00:00:00.000001",
  json: '{"b": 1,  "a":2, "b":null}',
  jsonb: '{"a": [1.10, "\\u00e9", null]}',
  jsonpath: '$."a b"[*] ? (@ > 1.50)',
  line: "{0.1,0.2,0.3}",
  lseg: "[(0.1,-0),(1,1)]",
  macaddr: "08:00:2b:01:02:03",
  macaddr8: "08:00:2b:01:02:03:04:05",
  money: "-92233720368547758.08",
  name: 'A "name"',
  numeric: "-12345678901234567890.12345678901234567890",
  nummultirange: "{(,1.10),[2,3.0]}",
  numrange: "[0.10,1e40)",
  oid: "4294967295",
  oidvector: "1 2 4294967295",
  path: "[(0,0),(1,1),(2,0.1)]",
  pg_lsn: "FFFFFFFF/FFFFFFFF",
  pg_snapshot: "10:20:10,14,19",
  point: "(0.1,-0)",
  polygon: "((0,0),(1,1),(2,0))",
  refcursor: "<unnamed portal 1>",
  regclass: "pg_class",
  regcollation: '"C"',
  regconfig: "english",
  regdictionary: "english_stem",
  regnamespace: "pg_catalog",
  regoper: "||/",
  regoperator: "+(integer,integer)",
  regproc: "now",
  regprocedure: "abs(integer)",
  regrole: "postgres",
  regtype: "timestamp with time zone",
  text: "é\t\\N\n'\"",
  tid: "(4294967295,65535)",
  time: "24:00:00",
  timestamp: "2016-12-31 23:59:59.999999",
  timestamptz: "0001-01-01 00:00:00+00 BC",
  timetz: "04:05:06.789-12:30",
  tsmultirange: '{["2000-01-01 23:59:59.999999",)}',
  tsquery: "'a' & !( 'b c':*AB | 'd' <3> 'e' )",
  tsrange: "[-infinity,2000-01-01)",
  tstzmultirange: '{["2000-01-01 00:00:00+14","2001-01-01 00:00:00-12")}',
  tstzrange: '["2000-01-01 00:00:00+05:30",)',
  tsvector: "'a b':1A,16383 'it''s':2",
  txid_snapshot: "10:20:10,14,19",
  uuid: "ffffffff-ffff-4fff-bfff-ffffffffffff",
  varbit: "000000001",
  varchar: "trailing ",
  xid: "4294967295",
  xid8: "18446744073709551615",
  xml: '<a b="\'">é<!-- c --></a>',
};

/** The server makes values of these itself, in its own catalogues and indexes, and takes none. A column of them can only be NULL. */
const WITHOUT_INPUT = [
  "gtsvector", // keys of GiST indexes over tsvector
  "pg_brin_bloom_summary", // of BRIN indexes
  "pg_brin_minmax_multi_summary",
  "pg_dependencies", // extended statistics
  "pg_mcv_list",
  "pg_ndistinct",
  "pg_node_tree", // parsed expressions
];

/** Removed in 12: no target that is supported has them. */
const REMOVED = ["abstime", "reltime", "smgr", "tinterval"];

/** Never moved as bytes: see `columnsQuery` in src/postgres/catalog.ts. */
const TEXT_ONLY = /^(?:reg.*|aclitem|gtsvector|int2vector|oidvector|tsquery)$/;

async function ask<T>(side: Side, question: (client: Client) => Promise<T>): Promise<T> {
  const client = await openSession(sharedCluster(side).url());
  try {
    return await question(client);
  } finally {
    await client.end();
  }
}

/** Every type of the server that a column may have, but for arrays, which come with their element. */
async function typesOf(side: Side): Promise<string[]> {
  const query =
    "select typname as name from pg_type where typnamespace = 'pg_catalog'::regnamespace and typtype in ('b', 'r', 'm') and typname !~ '^_'";
  const { rows } = await ask(side, (client) => client.query<{ name: string }>(query));
  return rows.map(({ name }) => name).toSorted();
}

const qualified = (type: string): string => `pg_catalog.${escapeIdentifier(type)}`;

test.each(["source", "target"] as const)("the %s has no type that is not tested", async (side) => {
  const types = await typesOf(side);
  expect(types.length).toBeGreaterThan(60);
  const known = [...Object.keys(SAMPLES), ...WITHOUT_INPUT, ...(side === "source" ? REMOVED : [])];
  expect(types.filter((type) => !known.includes(type))).toEqual([]);
  for (const type of types.filter((name) => WITHOUT_INPUT.includes(name)))
    await expect(
      ask(side, (client) => client.query(`select '1'::${qualified(type)}`)),
      type,
    ).rejects.toThrow(/^cannot accept a value of type |not implemented$/);
});

test.for(TRAVEL)("a value of every type arrives, by copy and by stream, as %s", async ([travel]) => {
  const onTarget = await typesOf("target");
  const types = (await typesOf("source")).filter(
    (type) => onTarget.includes(type) && (travel === "text" || !TEXT_ONLY.test(type)),
  );
  const sampled = types.filter((type) => type in SAMPLES);
  const columns = types.map((type) => `${escapeIdentifier(`a ${type}`)} ${qualified(type)}`).join(", ");
  const names = sampled.map((type) => escapeIdentifier(`a ${type}`));
  const values = sampled.map((type) => `${quoteLiteral(SAMPLES[type] as string)}::${qualified(type)}`);
  const insert = (table: string, ...ids: number[]): string =>
    ids
      .map(
        (id) =>
          `insert into ${table} (id, ${names.join(", ")}) values (${id}, ${values.join(", ")}); insert into ${table} (id) values (${-id})`,
      )
      .join(";");
  const setAll = (of: (index: number) => string): string =>
    names.map((name, index) => `${name} = ${of(index)}`).join(", ");

  await using replication = await startReplication({
    schema: `create table keyed (id int primary key, ${columns}); create table bag (id int, ${columns}); alter table bag replica identity full`,
    rows: `${insert("keyed", 1, 2)}; ${insert("bag", 1, 1, 2)}`,
    config: travelConfig(travel),
  });
  const { source, target } = replication;
  const complete = async (table: string): Promise<number> =>
    (await target.query(`select from ${table} where num_nulls(${names.join(", ")}) = 0`)).length;
  await replication.expectEqual();
  expect(await complete("keyed")).toBe(2);
  for (const table of ["keyed", "bag"]) {
    await source.query(insert(table, 3, 4));
    await source.query(`update ${table} set id = id + 10 where id in (1, 3)`);
    await source.query(`update ${table} set ${setAll(() => "null")} where id in (2, 4)`);
    await source.query(
      `update ${table} set ${setAll((index) => values[index] as string)} where id in (-1, -2, -3)`,
    );
  }
  await replication.expectEqual();
  expect(await complete("keyed")).toBe(5);
  expect(await complete("bag")).toBe(7);
  for (const table of ["keyed", "bag"]) {
    await source.query(
      `delete from ${table} where ctid in (select min(ctid::text)::tid from ${table} where id in (11, -1, -4) group by id)`,
    );
  }
  await replication.expectEqual();
  expect(await target.query("select conflicts from erserver.progress")).toEqual([{ conflicts: "0" }]);
});
