/** Not covered: lc_messages of another language, since embedded servers bring no translations. */
import { expect, test } from "vitest";
import { openSession, sharedCluster, type Side, testMajor } from "../support/clusters.ts";
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

interface MonetaryLocale {
  readonly name: string;
  /** An amount as the server writes it there. */
  readonly money: string;
}

/**
 * One in which the server writes money otherwise than in C and in `taken`, if the operating system has it. If not, one that is only called
 * otherwise: then it is the name alone that tells whose settings a session has.
 */
async function monetaryLocale(side: Side, taken?: MonetaryLocale): Promise<MonetaryLocale> {
  const client = await openSession(sharedCluster(side).url());
  try {
    const locale = async (name: string): Promise<MonetaryLocale[]> => {
      const text =
        "select (-123456789)::bigint::money::text as money from set_config('lc_monetary', $1, false)";
      const answer = await client.query<{ money: string }>(text, [name]).catch(() => undefined);
      return (answer?.rows ?? []).map(({ money }) => ({ name, money }));
    };
    const { rows } = await client.query<{ name: string }>(
      "select distinct collcollate as name from pg_collation where collprovider = 'c' and collcollate not in ('', 'C', 'POSIX') order by 1",
    );
    const [inC, posix] = [...(await locale("C")), ...(await locale("POSIX"))];
    let alike = posix;
    for (const { name } of rows) {
      for (const found of await locale(name)) {
        if (found.money === inC?.money) alike = found;
        else if (found.money !== taken?.money) return found;
      }
    }
    if (alike === undefined) throw new Error(`the ${side} has no locale but C`);
    return alike;
  } finally {
    await client.end();
  }
}

test.for(TRAVEL)("money is the same whatever lc_monetary the databases have, as %s", async ([travel]) => {
  const prefer = ({ name }: MonetaryLocale): string => run(perDatabase({ lc_monetary: `''${name}''` }));
  const onSource = await monetaryLocale("source");
  const locales = { source: onSource, target: await monetaryLocale("target", onSource) };
  await using replication = await startReplication({
    schema: `create table price (id int primary key, amount money, amounts money[]);
      create table bag (amount money, label text); alter table bag replica identity full`,
    sourceSchema: prefer(locales.source),
    // Fires for what we write, and tells with which setting.
    targetSchema: `${prefer(locales.target)}; create table told (lc_monetary text);
      create function tell() returns trigger language plpgsql as
        $$ begin insert into public.told values (current_setting('lc_monetary')); return null; end $$;
      create trigger tell after insert or update or delete on price for each row execute procedure tell();
      alter table price enable always trigger tell`,
    rows: `insert into price select i, (i * 1234567.89)::money, array[(-i)::money, null, 0.01::money] from generate_series(-2, 2) i;
      insert into bag select (i % 2 * 1234.5)::money, 'copied' from generate_series(1, 4) i`,
    config: travelConfig(travel),
  });
  await replication.expectEqual();
  const { source, target } = replication;
  for (const side of ["source", "target"] as const) {
    const { rows } = await (await replication[side].connect()).query("show lc_monetary");
    expect(rows).toEqual([{ lc_monetary: locales[side].name }]);
  }
  await source.query(
    `insert into price select i, '-92233720368547758.08', array['92233720368547758.07'::money] from generate_series(3, 4) i;
     update price set amount = amount * 1.1 where id < 0; update price set amounts = array[amount]; delete from price where id = 0;
     insert into bag values ('-0.01', 'streamed'); update bag set label = 'found' where amount > 1::money; delete from bag where amount = 0::money`,
  );
  await replication.expectEqual();
  expect(await target.query("select distinct lc_monetary from told")).toEqual([{ lc_monetary: "C" }]);
  expect(await target.query("select conflicts from erserver.progress")).toEqual([{ conflicts: "0" }]);
});
