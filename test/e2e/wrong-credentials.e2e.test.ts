import { describe, expect, it } from "vitest";
import { openSession } from "../support/clusters.ts";
import { startOwnReplication } from "../support/own-servers.ts";

const SCHEMA = "create table t (id int primary key)";
const SIDES = ["source", "target"] as const;

async function runSql(url: string, sql: string): Promise<void> {
  const client = await openSession(url);
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}

describe("what a server refuses us for is told apart from the network, and mends by itself", () => {
  it.each(SIDES)("%s: a wrong password is ERS-202 until it is corrected", async (side) => {
    await using replication = await startOwnReplication({
      schema: SCHEMA,
      rows: "insert into t values (1)",
      [`${side}Server`]: { authentication: "scram-sha-256", password: "right" },
      prepare: async (source, target) => {
        await (side === "source" ? source : target).query("alter role postgres password 'changed'");
      },
    });
    const refused = await replication.reaches("being refused", ({ error }) => error?.code === "ERS-202");
    expect(refused).toMatchObject({ state: "offline", side });
    const url = new URL(replication[side].cluster.url());
    url.password = "changed";
    await runSql(url.toString(), "alter role postgres password 'right'");
    await replication.expectEqual();
  });

  it.each(SIDES)("%s: a missing database is ERS-203 until it is there", async (side) => {
    await using replication = await startOwnReplication({
      schema: SCHEMA,
      rows: "insert into t values (1)",
      prepare: async (source, target) => {
        const { cluster } = side === "source" ? source : target;
        await runSql(cluster.url("template1"), "alter database postgres rename to elsewhere");
      },
    });
    const absent = await replication.reaches(
      "its absence to be noticed",
      ({ error }) => error?.code === "ERS-203",
    );
    expect(absent).toMatchObject({ state: "offline", side });
    await runSql(replication[side].cluster.url("template1"), "alter database elsewhere rename to postgres");
    await replication.expectEqual();
  });
});
