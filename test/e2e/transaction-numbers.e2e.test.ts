import { expect, it } from "vitest";
import { openSession } from "../support/clusters.ts";
import { startOwnReplication } from "../support/own-servers.ts";
import { setNextTransaction } from "../support/transaction-counter.ts";

it("transaction numbers above 2^31, and those that begin anew after 2^32, are numbers like others (T12)", async () => {
  await using replication = await startOwnReplication({
    schema: "create table t (id int primary key, v int); create table log (n serial primary key, who text)",
    rows: "insert into t select i, 0 from generate_series(1, 10) i",
    prepare: async (source, target) => {
      await Promise.all([source, target].map(({ cluster }) => setNextTransaction(cluster, 2 ** 32 - 60)));
    },
  });
  const { source, target } = replication;
  await replication.caughtUp();
  // A conflict shows the number as it came.
  await target.query("delete from t where id = 5");
  await source.query("update t set v = 1 where id = 5");

  const long = await openSession(source.cluster.url());
  const short = await openSession(source.cluster.url());
  try {
    const number = async (): Promise<number> => {
      await short.query("begin; insert into log (who) values ('short')");
      const { rows } = await short.query<{ number: string }>(
        "select txid_current() % (2 ^ 32)::bigint as number",
      );
      await short.query("commit");
      return Number(rows[0]?.number);
    };
    // Begins with a number at the end, and ends among those at the beginning.
    await long.query(
      "begin; insert into log (who) values ('long'); savepoint s; update t set v = 2 where id = 1",
    );
    expect(await number()).toBeGreaterThan(2 ** 31);
    for (let rounds = 0; (await number()) > 2 ** 31; rounds++) expect(rounds).toBeLessThan(60);
    await replication.expectEqual();
    await long.query("rollback to s; update t set v = 3 where id = 2; commit");
  } finally {
    await Promise.all([long.end(), short.end()]);
  }
  await target.query("delete from t where id = 6");
  await source.query("update t set v = 1 where id = 6; update t set v = v + 1, id = -id where id > 8");
  await replication.expectEqual();
  const conflicts = await target.query(
    "select xid > 2 ^ 31 as high, xid < 1000 as low, key from erserver.conflict order by id",
  );
  expect(conflicts).toEqual([
    { high: true, low: false, key: expect.objectContaining({ id: "5" }) as object },
    { high: false, low: true, key: expect.objectContaining({ id: "6" }) as object },
  ]);
  await replication.running.stop();
  const again = replication.another();
  await source.query("insert into t values (100, 0)");
  await replication.caughtUp(again);
  expect(await target.query("select id from t where id = 100")).toHaveLength(1);
});
