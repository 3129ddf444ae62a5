import { expect, test } from "vitest";
import { RowChange, TruncateChange } from "../change/change.ts";
import type { Lsn } from "../change/lsn.ts";
import type { Relation } from "../change/relation.ts";
import { withoutCopied } from "./already-copied.ts";

const relation = (id: number): Relation => ({
  id,
  schema: "public",
  name: `t${id}`,
  replicaIdentity: "default",
  columns: [],
});
const [early, late] = [relation(1), relation(2)];
const row = (of: Relation): RowChange =>
  new RowChange("insert", of, Buffer.alloc(0), -1, false, 0, false, 10);
const member = (commit: number, end: number) => ({
  end,
  transaction: {
    xid: commit,
    commitLsn: BigInt(commit) as Lsn,
    endLsn: BigInt(commit + 1) as Lsn,
    commitTime: 0,
  },
});

test("changes from before a table's copy are left out, each table by its own copy", () => {
  const truncate = new TruncateChange([early, late], true, true, 20);
  const changes = [row(early), row(late), truncate, row(late), row(early), row(late)];
  const group = {
    changes,
    members: [member(5, 3), member(9, 4), member(10, 6)],
    begins: true,
    ends: false,
    size: 7,
  };
  const left = withoutCopied(group, ({ id }) => (id === 1 ? 3n : 10n) as Lsn);
  expect(left.changes).toEqual([
    changes[0],
    new TruncateChange([early], true, true, 20),
    changes[4],
    changes[5],
  ]);
  expect(left.members.map(({ end }) => end)).toEqual([2, 2, 4]);
  expect(left).toMatchObject({ begins: true, ends: false, size: 7 });
});
