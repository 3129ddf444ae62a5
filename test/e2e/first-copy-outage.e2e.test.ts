import { describe, expect, it } from "vitest";
import { startOwnReplication } from "../support/own-servers.ts";

describe("an outage during the first copy", () => {
  it.each(["source", "target"] as const)(
    "%s crashes: the copy goes on by itself, and tables that were finished are not copied again (S5)",
    async (side) => {
      let reached: Promise<void> | undefined;
      await using replication = await startOwnReplication({
        schema:
          "create table large (id int primary key, v int, body text); create table small (id int primary key, v int)",
        rows: `insert into large select i, 0, repeat(md5(i::text), 10) from generate_series(1, 5000) i;
          insert into small select i, 0 from generate_series(1, 100) i`,
        // The largest first, one after the other.
        config: "copy: { jobs: 1 }",
        prepare: (source) => {
          reached = source.network.next({
            from: "client",
            type: "Q",
            match: (frame) =>
              /^copy \(select .* from only "?public"?\."?small/.test(frame.toString("latin1", 5)),
            action: "stall",
          });
        },
      });
      const { source, target } = replication;
      await reached;
      const states = "select source_table, state from erserver.table_state order by 1";
      expect(await target.query(states)).toEqual([
        { source_table: "large", state: "finished_copy" },
        { source_table: "small", state: "data_sync" },
      ]);
      const writtenBy = "select distinct xmin::text from large where id > 1";
      const [copier] = await target.query(writtenBy);
      // Flushes what is committed there, so that a crash does not take the finished copy back.
      await target.query("create table flushed ()");
      await source.query(
        "update large set v = 1 where id = 1; update small set v = 1; delete from small where id = 7",
      );

      await replication[side].cluster.restart("immediate");
      source.network.resume();
      await source.query(
        "update large set v = 2 where id = 1; update small set v = 2; insert into small values (101, 0)",
      );
      await replication.expectEqual();
      expect(await target.query(writtenBy)).toEqual([copier]);
      const [copies] = await target.query(
        `select bool_or(copy_lsn > (select copy_lsn from erserver.table_state where source_table = 'large')) as later
         from erserver.table_state where source_table = 'small'`,
      );
      expect(copies).toEqual({ later: true });
      const [progress] = await target.query("select conflicts::int, replays::int from erserver.progress");
      expect(progress).toEqual({ conflicts: 0, replays: 0 });
    },
  );
});
