import { expect, it } from "vitest";
import { type OwnReplication, OUR_OWN, startOwnReplication } from "../support/own-servers.ts";
import { tlsFile, turnOnTls } from "../support/tls-server.ts";

const AUTHENTICATION = {
  authentication: "scram-sha-256",
  password: "secret",
  settings: { password_encryption: "scram-sha-256" },
} as const;

/** Without TLS comes the test itself, to look on. */
const HBA = ["hostssl all all 127.0.0.1/32 scram-sha-256", "hostnossl all all 127.0.0.1/32 scram-sha-256"];

async function expectOnlyTls({ source, target }: OwnReplication): Promise<void> {
  for (const side of [source, target]) {
    const rows = await side.query<{ ssl: boolean }>(
      `select ssl from pg_stat_activity join pg_stat_ssl using (pid) where ${OUR_OWN}`,
    );
    expect(rows.length).toBeGreaterThan(0);
    expect(rows.filter((row) => !row.ssl)).toEqual([]);
  }
  const senders = await source.query(
    "select from pg_stat_replication join pg_stat_ssl using (pid) where ssl",
  );
  expect(senders.length).toBe(1);
}

interface Rows {
  readonly wide: number;
  readonly narrow: number;
}

/** Source and target that are reached by TLS with everything checked that there is to check. */
async function startByTls({ wide, narrow }: Rows): Promise<OwnReplication> {
  return startOwnReplication({
    schema: `create table wide (id int primary key, body text, raw bytea);
      create table narrow (id int primary key, v int)`,
    rows: `insert into wide
        select i, repeat(md5(i::text), 1 + i % 300), decode(repeat(md5(i::text), 1 + i % 50), 'hex')
        from generate_series(1, ${wide}) i;
      insert into narrow select i, i from generate_series(1, ${narrow}) i`,
    sourceServer: AUTHENTICATION,
    targetServer: AUTHENTICATION,
    parameters: `sslmode=verify-full&sslrootcert=${tlsFile("ca.crt")}&channel_binding=require`,
    prepare: async (...sides) => {
      for (const { cluster } of sides) await turnOnTls(cluster, HBA);
    },
  });
}

it("first copy and stream go by TLS", async () => {
  await using replication = await startByTls({ wide: 2_000, narrow: 30_000 });
  const { source } = replication;
  await replication.expectEqual();
  await expectOnlyTls(replication);
  await source.query("insert into narrow select i, 0 from generate_series(30001, 50000) i");
  await source.query(
    "update wide set body = body || 'x' where id % 3 = 0; delete from wide where id % 7 = 0",
  );
  await source.query("update narrow set v = v + 1");
  await replication.expectEqual();
  await expectOnlyTls(replication);
}, 120_000);

it("the stream goes on by TLS after silence, cut records and servers that go away", async () => {
  await using replication = await startByTls({ wide: 100, narrow: 100 });
  const { source, target } = replication;
  const outages: (() => Promise<void> | void)[] = [
    () => source.network.halfOpen("client"),
    () => target.network.halfOpen("client"),
    () => source.network.cutAfter(20_000, "server"),
    () => target.network.cutAfter(20_000, "client"),
    () => source.cluster.restart(),
    () => target.cluster.restart("immediate"),
  ];
  await replication.expectEqual();
  for (const outage of outages) {
    await outage();
    await source.query("update narrow set v = v + 1; delete from wide");
    await source.query(
      "insert into wide select i, repeat(md5(i::text), 30), null from generate_series(1, 100) i",
    );
    await replication.expectEqual();
  }
  await replication.reaches("streaming", ({ state }) => state === "streaming");
  await expectOnlyTls(replication);
}, 120_000);
