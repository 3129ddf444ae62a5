import { describe, expect, test } from "vitest";
import { type FreshDatabase, freshDatabase, sharedCluster, testMajor } from "../../test/support/clusters.ts";
import { parseConninfo } from "../config/conninfo.ts";
import { systemEnvironment } from "../config/environment.ts";
import { connectControl } from "./connect.ts";
import { type ForeignKey, readConstraints, type TableConstraints } from "./constraints.ts";

const OPTIONS = { applicationName: "erserver test", timeoutMs: 30_000 };

/** What came later than some server that is tested. */
const MAJOR = testMajor("target");

interface Read {
  /** By name, as `regclass` prints it. */
  readonly tables: Readonly<Record<string, TableConstraints>>;
  readonly foreignKeys: readonly (Omit<ForeignKey, "from" | "to"> & { from: string; to: string })[];
}

async function read(database: FreshDatabase, replicaRole = false): Promise<Read> {
  await using control = await connectControl(parseConninfo(database.url, systemEnvironment()), OPTIONS);
  const [server] = await database.query<{ version: number }>(
    "select current_setting('server_version_num')::int as version",
  );
  const { tables, foreignKeys } = await readConstraints(control, server?.version ?? 0, replicaRole);
  const relations = await database.query<{ oid: string; name: string }>(
    "select oid::text as oid, oid::regclass::text as name from pg_class",
  );
  const nameOf = new Map(relations.map(({ oid, name }) => [Number(oid), name]));
  const named = (oid: number): string => nameOf.get(oid) ?? `no table ${oid}`;
  return {
    tables: Object.fromEntries([...tables].map(([oid, table]) => [named(oid), table])),
    foreignKeys: foreignKeys.map((key) => ({ ...key, from: named(key.from), to: named(key.to) })),
  };
}

/** Sorted, and each once: a partition has the indexes of its table again. */
function uniqueOf({ tables }: Read, table: string): (string | undefined)[] {
  const unique = tables[table]?.unique.map((columns) => columns?.join(", "));
  return [...new Set(unique)].toSorted((a = "", b = "") => (a < b ? -1 : 1));
}

const firing = ({ tables }: Read): string[] =>
  Object.keys(tables)
    .filter((name) => tables[name]?.fires)
    .toSorted();

const byEnds = (keys: Read["foreignKeys"]): string[] =>
  keys
    .map(({ from, to, columns, referenced }) => `${from}(${columns.join()}) ${to}(${referenced.join()})`)
    .toSorted();

const NO_CONSTRAINTS: TableConstraints = { unique: [], fires: false, looselyCompared: [] };

describe("tables", () => {
  test("are those of users, whatever schema they are in, and no views", async () => {
    await using database = await freshDatabase(sharedCluster("target"));
    await database.query(
      `create schema other; create schema erserver; create table t (id int check (id > 0) not null, v text default 'x'); create index on t (v);
       create table other.t (id int); create table erserver.own (id int primary key); create unlogged table "U" (id int); create table parts (id int) partition by list (id);
       create view seen as select * from t; create materialized view kept as select * from t`,
    );
    const { tables } = await read(database);
    expect(tables).toEqual({
      t: NO_CONSTRAINTS,
      "other.t": NO_CONSTRAINTS,
      '"U"': NO_CONSTRAINTS,
      parts: NO_CONSTRAINTS,
    });
    expect((await read(database, true)).tables).toEqual(tables);
  });
});

describe("unique indexes", () => {
  test("are read with their columns in order; what compares otherwise is told to be there", async () => {
    await using database = await freshDatabase(sharedCluster("target"));
    await database.query(
      `create table plain (id int primary key, a int, b int, "Odd, ""name" text unique, unique (b, a)); create unique index on plain (a);
       create table postponed (a int unique deferrable initially deferred);
       create table some_rows (a int); create unique index on some_rows (a) where a > 0;
       create table computed (a text, b text); create unique index on computed (a, lower(b));
       create table excluded (a int4range, b int, exclude using gist (a with &&)); alter table excluded add primary key (b);
       create table altered (gone int, a int unique, b int); alter table altered drop column gone; create unique index on altered (b, a)`,
    );
    const found = await read(database);
    expect(uniqueOf(found, "plain")).toEqual(['Odd, "name', "a", "b, a", "id"]);
    expect(uniqueOf(found, "postponed")).toEqual(["a"]);
    expect(found.tables["some_rows"]?.unique).toEqual([undefined]);
    expect(found.tables["computed"]?.unique).toEqual([undefined]);
    expect(uniqueOf(found, "excluded")).toEqual(["b", undefined]);
    expect(uniqueOf(found, "altered")).toEqual(["a", "b, a"]);
    expect(firing(found)).toEqual([]);
    expect((await read(database, true)).tables).toEqual(found.tables);
  });

  test.skipIf(MAJOR < 11)("have no columns that are only included", async () => {
    await using database = await freshDatabase(sharedCluster("target"));
    await database.query("create table t (a int, b int, c int, unique (b, a) include (c))");
    expect((await read(database)).tables["t"]?.unique).toEqual([["b", "a"]]);
  });

  test.skipIf(MAJOR < 15)("that take one NULL for another are not told by their columns", async () => {
    await using database = await freshDatabase(sharedCluster("target"));
    await database.query("create table t (a int unique, b int unique nulls not distinct)");
    expect(uniqueOf(await read(database), "t")).toEqual(["a", undefined]);
  });

  test.skipIf(MAJOR < 18)(
    "of which the last column must not overlap are not told by their columns",
    async () => {
      await using database = await freshDatabase(sharedCluster("target"));
      await database.query("create table t (a int4range, b int4range, primary key (a, b without overlaps))");
      expect((await read(database)).tables["t"]?.unique).toEqual([undefined]);
    },
  );

  test("of a partition are its table's as well, and not those of the partitions beside it", async () => {
    await using database = await freshDatabase(sharedCluster("target"));
    await database.query(
      `create table t (id int not null, a int, b int) partition by range (id);
       create table low partition of t for values from (0) to (10);
       create table high partition of t for values from (10) to (20) partition by range (id);
       create table highest (b int, a int, id int not null); alter table high attach partition highest for values from (15) to (20);
       create unique index on low (a); create unique index on highest (b) where b > 0`,
    );
    const own = await read(database);
    expect(uniqueOf(own, "t")).toEqual(["a", undefined]);
    expect(uniqueOf(own, "low")).toEqual(["a"]);
    expect(own.tables["high"]?.unique).toEqual([undefined]);
    expect(own.tables["highest"]?.unique).toEqual([undefined]);
    if (MAJOR < 11) return;
    await database.query("alter table t add primary key (id)");
    const keyed = await read(database);
    expect(uniqueOf(keyed, "t")).toEqual(["a", "id", undefined]);
    expect(uniqueOf(keyed, "low")).toEqual(["a", "id"]);
    expect(uniqueOf(keyed, "highest")).toEqual(["id", undefined]);
  });
});

describe("what fires", () => {
  const TRIGGERED = ["usual", "replica", "always", "disabled", "statement", "postponed"];

  async function triggers(database: FreshDatabase): Promise<void> {
    await database.query("create function f() returns trigger language plpgsql as 'begin return new; end'");
    for (const name of TRIGGERED) await database.query(`create table ${name} (id int primary key)`);
    for (const name of TRIGGERED.slice(0, 4))
      await database.query(
        `create trigger g before insert on ${name} for each row execute procedure public.f()`,
      );
    await database.query(
      `alter table replica enable replica trigger g; alter table always enable always trigger g; alter table disabled disable trigger g;
       create trigger g after truncate on statement execute procedure public.f();
       create constraint trigger g after insert on postponed deferrable initially deferred for each row execute procedure public.f()`,
    );
  }

  test("are triggers, unless they are for replicas or disabled", async () => {
    await using database = await freshDatabase(sharedCluster("target"));
    await triggers(database);
    expect(firing(await read(database))).toEqual(["always", "postponed", "statement", "usual"]);
  });

  test("are the triggers for replicas, and those for all, in a session that is one", async () => {
    await using database = await freshDatabase(sharedCluster("target"));
    await triggers(database);
    expect(firing(await read(database, true))).toEqual(["always", "replica"]);
  });

  test("are no triggers by which the server keeps constraints", async () => {
    await using database = await freshDatabase(sharedCluster("target"));
    await database.query(
      `create table parent (id int primary key); create table child (id int primary key, parent int references parent on delete cascade, u int unique deferrable)`,
    );
    expect(firing(await read(database))).toEqual([]);
    expect(firing(await read(database, true))).toEqual([]);
  });

  test("is a trigger of a partition on its table too, and the table's on every partition", async () => {
    await using database = await freshDatabase(sharedCluster("target"));
    await database.query(
      `create function f() returns trigger language plpgsql as 'begin return new; end';
       create table t (id int) partition by range (id);
       create table low partition of t for values from (0) to (10); create table high partition of t for values from (10) to (20);
       create trigger g after insert on low for each row execute procedure public.f()`,
    );
    expect(firing(await read(database))).toEqual(["low", "t"]);
    expect(firing(await read(database, true))).toEqual([]);
    await database.query("alter table low enable always trigger g");
    expect(firing(await read(database, true))).toEqual(["low", "t"]);
    if (MAJOR < 11) return;
    await database.query(
      "drop trigger g on low; create trigger g after insert on t for each row execute procedure public.f()",
    );
    expect(firing(await read(database))).toEqual(["high", "low", "t"]);
  });

  test("are rules, unless they are disabled", async () => {
    await using database = await freshDatabase(sharedCluster("target"));
    await database.query(
      `create table ruled (id int); create rule r as on insert to ruled do also notify ruled; create table disabled (id int);
       create rule r as on delete to disabled do instead nothing; alter table disabled disable rule r;
       create table always (id int); create rule r as on update to always do instead nothing; alter table always enable always rule r; create table none (id int)`,
    );
    expect(firing(await read(database))).toEqual(["always", "ruled"]);
    expect(firing(await read(database, true))).toContain("always");
    expect(firing(await read(database, true))).not.toContain("disabled");
  });
});

describe("foreign keys", () => {
  test("are read with both sides' columns, unless the session is one in which they are not looked at", async () => {
    await using database = await freshDatabase(sharedCluster("target"));
    await database.query(
      `create table parent (id int primary key, x int, y varchar(5), n numeric(10,2) unique, unique (x, y));
       create table child (a varchar(5), b int, id int references parent, foreign key (a, b) references parent (y, x), foreign key (b, a) references parent (x, y));
       create table itself (id int primary key, up int references itself);
       create table not_checked (id int); alter table not_checked add foreign key (id) references parent not valid deferrable`,
    );
    const { foreignKeys } = await read(database);
    expect(byEnds(foreignKeys)).toEqual([
      "child(a,b) parent(y,x)",
      "child(b,a) parent(x,y)",
      "child(id) parent(id)",
      "itself(up) itself(id)",
      "not_checked(id) parent(id)",
    ]);
    for (const key of foreignKeys) expect(key).toMatchObject({ sameTypes: true, acts: false });
    expect((await read(database, true)).foreignKeys).toEqual([]);
  });

  test("tell whether they change rows of their own", async () => {
    await using database = await freshDatabase(sharedCluster("target"));
    const ACTIONS = [
      ["no action", false],
      ["restrict", false],
      ["cascade", true],
      ["set null", true],
      ["set default", true],
    ] as const;
    await database.query("create table parent (id int primary key)");
    for (const event of ["update", "delete"])
      for (const [action, acts] of ACTIONS) {
        await database.query(
          `drop table if exists child; create table child (id int references parent on ${event} ${action})`,
        );
        const { foreignKeys } = await read(database);
        expect([event, action, foreignKeys.map((key) => key.acts)]).toEqual([event, action, [acts]]);
      }
  });

  test("tell whether all of their columns have the types of those that they are equal to", async () => {
    await using database = await freshDatabase(sharedCluster("target"));
    await database.query(
      `create domain whole as int;
       create table parent (a int primary key, n numeric(10,2) unique, t text unique, b int, unique (a, b));
       create table same (id int references parent, n numeric(10,2) references parent (n), foreign key (id, id) references parent (a, b));
       create table wider (id bigint references parent); create table scaled (id numeric(10,1) references parent (n));
       create table bounded (id varchar(5) references parent (t)); create table named (id whole references parent);
       create table half (a int, b bigint, foreign key (a, b) references parent (a, b))`,
    );
    const { foreignKeys } = await read(database);
    expect(foreignKeys).toHaveLength(8);
    for (const { from, sameTypes } of foreignKeys) expect([from, sameTypes]).toEqual([from, from === "same"]);
  });

  test.skipIf(MAJOR < 12)("are those of every partition, on both sides", async () => {
    await using database = await freshDatabase(sharedCluster("target"));
    await database.query(
      `create table parent (id int primary key) partition by range (id);
       create table parent_low partition of parent for values from (0) to (10);
       create table child (id int, parent int references parent) partition by range (id);
       create table child_low (parent int, id int); alter table child attach partition child_low for values from (0) to (10)`,
    );
    const ends = byEnds((await read(database)).foreignKeys);
    // Whichever name a row is written under, its own key is looked for under the same one.
    for (const from of ["child", "child_low"]) expect(ends).toContain(`${from}(parent) parent(id)`);
    expect(ends).toContain("child(parent) parent_low(id)");
  });
});

describe("collations", () => {
  test.skipIf(MAJOR < 12)(
    "that take different texts for equal are told by their columns",
    async ({ skip }) => {
      await using database = await freshDatabase(sharedCluster("target"));
      const icu = await database.query("select 1 from pg_collation where collprovider = 'i' limit 1");
      if (icu.length === 0) skip("the server is built without ICU");
      await database.query(
        `create collation loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
       create collation exact (provider = icu, locale = 'und');
       create domain word as text collate loose;
       create table t (id int primary key, a text collate loose, b text collate exact, c text, d varchar(5) collate "C", e word, f text collate loose);
       create table other (a text); create unique index on other (a collate loose)`,
      );
      const { tables } = await read(database);
      expect(tables["t"]?.looselyCompared.toSorted()).toEqual(["a", "e", "f"]);
      expect(tables["other"]).toEqual({ ...NO_CONSTRAINTS, unique: [undefined] });
    },
  );

  test("of the server's own tell every text from every other", async () => {
    await using database = await freshDatabase(sharedCluster("target"));
    await database.query('create table t (a text primary key, b text collate "C", c name)');
    expect((await read(database)).tables["t"]).toEqual({ ...NO_CONSTRAINTS, unique: [["a"]] });
  });
});
