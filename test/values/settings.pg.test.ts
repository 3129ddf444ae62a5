/**
 * Not covered: lc_monetary and lc_messages of another language, since embedded servers bring no locales; what money looks like
 * under them is not read, our sessions set lc_monetary themselves.
 */
import { expect, test } from "vitest";
import { testMajor } from "../support/clusters.ts";
import { startReplication } from "../support/pipeline-context.ts";
import { arraysOf, expectFaithful, sql, TRAVEL, travelConfig, type ValueType } from "./value-history.ts";

const TYPES: readonly ValueType[] = [
  { type: "date", values: ["2001-02-03", "0044-03-15 BC", "0012-11-10", "12345-06-07", "infinity"] },
  { type: "timestamp", values: ["2001-02-03 04:05:06.7", "0012-11-10 23:59:59.999999 BC"] },
  {
    type: "timestamptz",
    values: ["2001-02-03 04:05:06.7+09", "2021-03-28 01:30:00+00", "1850-01-01 00:00:00+00"],
  },
  { type: "timetz", values: ["04:05:06+05:45", "24:00:00-12"] },
  {
    type: "interval",
    values: ["1 year -2 days +03:04:05.6", "-1 year 2 days -00:00:00.000001", "0", "-1 day"],
  },
  { type: "real", values: ["0.1", "3.4028235e38", "1e-45"] },
  { type: "double precision", values: ["0.1", "0.30000000000000004", "4.9e-324", "NaN"] },
  { type: "point", key: false, values: ["(0.1,0.30000000000000004)", "(NaN,-0)"] },
  { type: "bytea", values: [sql("decode('00ff5c27', 'hex')"), sql("'abc'")] },
  { type: "money", values: [sql("123456789::bigint::money / 100"), sql("(-1)::bigint::money / 100")] },
  { type: "text", values: [sql("chr(92)"), sql("chr(92) || chr(39) || 'n'"), "NULL", "null"] },
  { type: "text[]", values: [sql("array['NULL', null, 'null']"), sql("array[chr(92), chr(34), '']")] },
  {
    type: "xml",
    key: false,
    values: [sql("xmlparse(content 'no <a/> document <b/>')"), sql("xmlparse(document '<a/>')")],
  },
  { type: "mood", values: ["sad", "ok"] },
];

const perDatabase = (settings: Readonly<Record<string, string>>): string =>
  Object.entries(settings)
    .map(([name, value]) => `execute format('alter database %I set ${name} = ${value}', current_database());`)
    .join("\n");

/** For the role in the database, which goes before the database's own. */
const perRole = (settings: Readonly<Record<string, string>>): string =>
  perDatabase(settings).replaceAll("alter database %I", "alter role postgres in database %I");

const run = (statements: string): string => `do $do$ begin ${statements} end $do$`;

const laterTimeouts = (major: number): Record<string, string> => ({
  ...(major >= 14 ? { idle_session_timeout: "500" } : {}),
  ...(major >= 17 ? { transaction_timeout: "500" } : {}),
});

const SOURCE = run(
  perDatabase({
    datestyle: "''SQL, DMY''",
    timezone: "''Asia/Kathmandu''",
    intervalstyle: "sql_standard",
    bytea_output: "escape",
    extra_float_digits: "-15",
    search_path: "''nowhere''",
    standard_conforming_strings: "off",
    escape_string_warning: "off",
    backslash_quote: "off",
    xmloption: "document",
    array_nulls: "off",
    quote_all_identifiers: "on",
    default_transaction_read_only: "on",
    default_transaction_isolation: "serializable",
    default_transaction_deferrable: "on",
    transform_null_equals: "on",
    client_encoding: "LATIN1",
    statement_timeout: "1",
    lock_timeout: "1",
    idle_in_transaction_session_timeout: "1",
    ...laterTimeouts(testMajor("source")),
  }),
);

const TARGET = run(
  perRole({
    datestyle: "''German, MDY''",
    timezone: "''America/St_Johns''",
    intervalstyle: "iso_8601",
    bytea_output: "hex",
    extra_float_digits: "0",
    search_path: "pg_temp",
    standard_conforming_strings: "off",
    escape_string_warning: "off",
    xmloption: "document",
    array_nulls: "off",
    default_transaction_isolation: "''repeatable read''",
    default_transaction_read_only: "on",
    statement_timeout: "1",
    lock_timeout: "1",
    idle_in_transaction_session_timeout: "1",
    ...laterTimeouts(testMajor("target")),
  }),
);

const PRELUDE = "create type mood as enum ('sad', 'ok')";

test.for(TRAVEL)(
  "values arrive as they are whatever the databases and roles prefer, as %s",
  async ([travel]) => {
    await expectFaithful(
      TYPES.filter(({ type }) => type !== "xml" || travel === "text"),
      { prelude: PRELUDE, sourcePrelude: SOURCE, targetPrelude: TARGET, config: travelConfig(travel) },
    );
  },
);

test("arrays with NULL and composites arrive as they are whatever the databases and roles prefer", async () => {
  const composite: ValueType = {
    type: "pair",
    values: [sql("row('2001-02-03'::date, 0.5::float8, null)"), sql("row(null, 'NaN'::float8, '')")],
  };
  await expectFaithful(
    [composite, ...arraysOf(TYPES.filter(({ type }) => type !== "text[]" && type !== "xml"))],
    {
      prelude: `${PRELUDE}; create type pair as (d date, f float8, t text)`,
      sourcePrelude: SOURCE,
      targetPrelude: TARGET,
    },
  );
});

test("a session of ours that has nothing to do is not ended by a timeout of the database", async () => {
  await using replication = await startReplication({
    schema: "create table t (id int primary key)",
    sourceSchema: SOURCE,
    targetSchema: TARGET,
  });
  await replication.caughtUp();
  await replication.source.query("select pg_sleep(1.5)");
  await replication.source.query("insert into t values (1)");
  await replication.expectEqual();
  expect(replication.running.statuses.map(({ state }) => state)).not.toContain("offline");
});
