import { expect, test } from "vitest";
import type { Lsn } from "../../change/lsn.ts";
import type { TargetStatus } from "../../pipeline/read-status.ts";
import { PLAIN } from "./paint.ts";
import { renderStatus, statusJson } from "./status.ts";

const now = new Date("2026-11-23T14:00:00Z");
const problem = {
  code: "ERS-704",
  table: "public.log",
  message: "public.log has no row identity",
  remedy: "Add a key.",
  blocks: false,
} as const;
const london: TargetStatus = {
  name: "london",
  state: "streaming",
  since: new Date("2026-11-23T13:55:00Z"),
  side: undefined,
  error: undefined,
  lagBytes: 0,
  lagSeconds: 0,
  appliedLsn: 0x15a3f40n as Lsn,
  transactions: 1234,
  rows: 5678,
  conflicts: 0,
  replays: 0,
  capture: "wal",
  retainedWalBytes: 16384,
  slot: { name: "erserver_london", active: true, walStatus: "reserved" },
  tables: { total: 3, copied: 3 },
  problems: [problem],
  running: true,
};
const tokyo: TargetStatus = {
  ...london,
  name: "tokyo",
  state: "offline",
  side: "target",
  lagBytes: undefined,
  lagSeconds: undefined,
  appliedLsn: undefined,
  capture: "wal",
  retainedWalBytes: undefined,
  transactions: 0,
  rows: 0,
  slot: { name: "erserver_tokyo", active: false, walStatus: "lost" },
  error: { code: "ERS-201", message: "r@h:1/d: no answer", remedy: "Start it." },
  tables: { total: 3, copied: 1 },
  running: false,
};

test("there is a line for each target, and below what somebody should know, each thing once", () => {
  expect(renderStatus([london, tokyo], now, PLAIN).split("\n")).toEqual([
    "target  state               for   lag  behind   position  transactions   rows  retained",
    "london  streaming         5 min  0 ms     0 B  0/15A3F40         1,234  5,678     16 kB",
    "tokyo   offline (target)  5 min     -       -          -             0      0         -",
    "",
    "tokyo: ERS-201  r@h:1/d: no answer",
    "  → Start it.",
    "tokyo: 1 of 3 tables copied",
    "tokyo: replication slot erserver_tokyo is lost: the source removes WAL that is still needed",
    "",
    "ERS-704  public.log has no row identity",
    "  → Add a key.",
    "",
  ]);
});

test("a target that nobody serves says how to serve it", () => {
  expect(renderStatus([{ ...london, running: false }], now, PLAIN)).toContain(
    "london: no erserver is running for this target; start one: erserver run\n",
  );
});

test("as JSON, positions are text and times ISO 8601", () => {
  expect(JSON.parse(JSON.stringify(statusJson([london])))).toMatchObject([
    {
      target: "london",
      position: "0/15A3F40",
      since: "2026-11-23T13:55:00.000Z",
      lagBytes: 0,
      running: true,
    },
  ]);
});
