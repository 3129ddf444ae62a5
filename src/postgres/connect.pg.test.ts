import { describe, expect, test } from "vitest";
import { freshDatabase, openSession, sharedCluster } from "../../test/support/clusters.ts";
import { until } from "../../test/support/wait.ts";
import { type Conninfo, parseConninfo } from "../config/conninfo.ts";
import { systemEnvironment } from "../config/environment.ts";
import { connectControl } from "./connect.ts";

const OPTIONS = { applicationName: "erserver connect test", timeoutMs: 30_000 };

/** What libpq would make of it with these variables and this home folder. */
function conninfoOf(text: string, { env = {}, home = "/nowhere" } = {}): Conninfo {
  return parseConninfo(text, { ...systemEnvironment(), env, home });
}

describe("a connection that fails is closed", () => {
  const sessionsOf = async (user: string): Promise<number> => {
    const observer = await openSession(sharedCluster("source").url());
    try {
      const answer = await observer.query("select from pg_stat_activity where usename = $1", [user]);
      return answer.rowCount ?? 0;
    } finally {
      await observer.end();
    }
  };

  test("where it may not make its settings", async () => {
    await using database = await freshDatabase(sharedCluster("source"));
    const role = `${database.name}_limited`;
    await database.query("revoke execute on function pg_catalog.set_config from public");
    await database.query(`create role ${role} login`);
    try {
      const conninfo = conninfoOf(sharedCluster("source").url(database.name, role));
      await expect(connectControl(conninfo, OPTIONS)).rejects.toThrow(/permission denied/);
      await until(async () => (await sessionsOf(role)) === 0, {
        what: "the session to be closed",
        timeout: 5_000,
      });
    } finally {
      await database.query(`drop role ${role}`);
    }
  });
});
