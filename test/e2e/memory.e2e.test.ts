import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parseLsn } from "../../src/change/lsn.ts";
import { BuiltCli } from "../support/built-cli.ts";
import { type FreshDatabase, freshDatabase, openSession, sharedCluster } from "../support/clusters.ts";
import { expectEqualTables } from "../support/compare.ts";
import { until } from "../support/wait.ts";

const LIMIT_MB = 300;

/** The most memory that a process has had, in MB. */
async function peakMemory(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1]) / 1024;
}

describe.skipIf(process.platform !== "linux")("memory of the replicator", () => {
  let cli: BuiltCli;

  beforeAll(async () => {
    cli = await BuiltCli.build();
  });

  afterAll(async () => {
    await cli[Symbol.asyncDispose]();
  });

  /** Makes a backlog while nobody follows, and returns what a process that drains it needed. */
  async function drain(schema: string, work: (source: FreshDatabase) => Promise<void>): Promise<number> {
    await using source = await freshDatabase(sharedCluster("source"));
    await using target = await freshDatabase(sharedCluster("target"));
    for (const database of [source, target]) await database.query(schema);
    const folder = await mkdtemp(path.join(tmpdir(), "erserver-memory-"));
    try {
      const file = path.join(folder, "erserver.yaml");
      await writeFile(file, `source: ${source.url}\ntargets:\n  ${source.name}: ${target.url}\n`);
      const first = await cli.run("sync", "-c", file);
      expect(first, first.errors).toMatchObject({ exit: 0 });
      await work(source);
      const [marker] = await source.query<{ lsn: string }>(
        "select pg_logical_emit_message(true, 'test', '')::text as lsn",
      );
      await using running = cli.start("run", "-c", file);
      const reached = async (): Promise<boolean> => {
        if (running.process.exitCode !== null) throw new Error(running.errors);
        const [progress] = await target.query<{ lsn: string }>(
          "select lsn::text as lsn from erserver.progress",
        );
        return parseLsn(progress?.lsn ?? "0/0") >= parseLsn(marker?.lsn ?? "0/0");
      };
      await until(reached, { what: `the target to reach ${marker?.lsn}`, timeout: 280_000, interval: 200 });
      const peak = await peakMemory(running.process.pid as number);
      running.process.kill("SIGTERM");
      expect(await running.finished).toMatchObject({ exit: 0 });
      await expectEqualTables(source.url, target.url);
      return peak;
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }

  test(
    "stays under 300 MB while a transaction of 2,000,000 rows drains (T7)",
    { timeout: 400_000 },
    async () => {
      const peak = await drain(
        "create table t (id bigint primary key, n int, body text, at timestamptz)",
        async (source) => {
          await source.query(
            "set synchronous_commit = off; insert into t select i, i % 1000, 'row number ' || i, now() from generate_series(1, 2000000) i",
          );
        },
      );
      expect(peak).toBeLessThan(LIMIT_MB);
    },
  );

  test("stays under 300 MB while 200,000 transactions drain", { timeout: 400_000 }, async () => {
    const peak = await drain(
      "create table account (id int primary key, balance int not null default 0); create table history (client int, number int, primary key (client, number))",
      async (source) => {
        await source.query("insert into account select i from generate_series(1, 10000) i");
        const write = async (client: number): Promise<void> => {
          const session = await openSession(source.url);
          await session.query("set synchronous_commit = off");
          for (let from = 0; from < 50_000; from += 500) {
            const transactions = Array.from(
              { length: 500 },
              (_, i) =>
                `begin; insert into history values (${client}, ${from + i}); update account set balance = balance + 1 where id = ${1 + (((from + i) * 7 + client) % 10000)}; commit`,
            );
            await session.query(transactions.join(";"));
          }
          await session.end();
        };
        await Promise.all([0, 1, 2, 3].map(write));
      },
    );
    expect(peak).toBeLessThan(LIMIT_MB);
  });
});
