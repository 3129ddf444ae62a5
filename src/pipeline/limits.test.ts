import { expect, test } from "vitest";
import { limitsOf } from "./limits.ts";

const server = (version: number): Parameters<typeof limitsOf>[0]["source"] => ({
  version,
  versionText: String(Math.floor(version / 10_000)),
  database: "booktown",
  user: "pma",
  superuser: false,
  inRecovery: false,
});

test("servers that can do everything have nothing to be said about", () => {
  expect(limitsOf({ source: server(110_000), target: server(180_000), replicaRole: true })).toEqual([]);
});

test("what a version or a role does less is said by side, with what to run", () => {
  const limits = limitsOf({ source: server(100_000), target: server(990_000), replicaRole: false });
  expect(limits.map(({ code }) => code)).toEqual(["ERS-308", "ERS-308", "ERS-308"]);
  expect(limits[0]).toMatchObject({ message: expect.stringMatching(/PostgreSQL 99 on the target is newer/) });
  expect(limits[1]).toMatchObject({
    message: expect.stringMatching(/PostgreSQL 10 does not publish TRUNCATE/),
  });
  expect(limits[2]).toMatchObject({
    remedy: 'Run on the target as superuser: GRANT SET ON PARAMETER session_replication_role TO "pma";',
  });
  const [before15] = limitsOf({ source: server(150_000), target: server(140_000), replicaRole: false });
  expect(before15?.remedy).not.toMatch(/^Run on the target as superuser: GRANT/);
});
