import { expect, test } from "vitest";
import { freshDatabase, openSession, sharedCluster, testMajor } from "./clusters.ts";

test.for(["source", "target"] as const)(
  "the shared %s is of the project's major and decodes",
  async (side) => {
    await using database = await freshDatabase(sharedCluster(side));
    const [row] = await database.query(
      "SELECT current_setting('server_version_num')::int / 10000 AS major, current_setting('wal_level') AS wal_level",
    );
    expect(row).toEqual({ major: testMajor(side), wal_level: "logical" });
  },
);

test("a database goes away with its sessions and its slots, used or not", async () => {
  const server = sharedCluster("source");
  let name: string;
  {
    await using database = await freshDatabase(server, { encoding: "LATIN1" });
    name = database.name;
    await database.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [`${name}_idle`]);
    await database.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [`${name}_used`]);
    const forgotten = await openSession(`${database.url}?replication=database`);
    // Never answered: the walsender streams until it is terminated.
    void forgotten
      .query(`START_REPLICATION SLOT ${name}_used LOGICAL 0/0 (proto_version '1', publication_names 'none')`)
      .catch(() => undefined);
  }
  await using other = await freshDatabase(server);
  expect(await other.query("SELECT 1 FROM pg_database WHERE datname = $1", [name])).toEqual([]);
  expect(
    await other.query("SELECT 1 FROM pg_replication_slots WHERE slot_name LIKE $1", [`${name}%`]),
  ).toEqual([]);
});
