import { expect, test } from "vitest";
import { recordingTerminal } from "../../../test/support/recording-terminal.ts";
import type { Lsn } from "../../change/lsn.ts";
import type { PipelineStatus } from "../../pipeline/pipeline.ts";
import { copyText } from "./pipeline-lines.ts";
import { RunView } from "./run-view.ts";

const since = new Date(2026, 10, 23, 14, 2, 11);
const base: PipelineStatus = {
  name: "london",
  state: "streaming",
  since,
  side: undefined,
  error: undefined,
  capture: "wal",
  appliedLsn: 0x15a3f40n as Lsn,
  copy: undefined,
  transactions: 0,
  rows: 0,
};
const error = { code: "ERS-201", message: "r@h:1/d: no answer", remedy: "Start it." };
const offline: PipelineStatus = { ...base, state: "offline", side: "target", error };

test("there is one line for each change of state, however often the status comes", () => {
  const terminal = recordingTerminal();
  using view = new RunView(terminal, ["london", "hong-kong"], false);
  for (const status of [base, { ...base, transactions: 5 }, offline, offline, base]) view.onStatus(status);
  view.ended({ ...base, transactions: 1, rows: 1200 });
  expect(terminal.output.split("\n")).toEqual([
    "14:02:11  london     streaming    at 0/15A3F40",
    "14:02:11  london     offline      target: ERS-201 r@h:1/d: no answer",
    "          → Start it.",
    "14:02:11  london     streaming    at 0/15A3F40",
    "london: ended after 1 transaction (1,200 rows), at 0/15A3F40",
    "",
  ]);
});

test("with json they are events", () => {
  const terminal = recordingTerminal({ live: true });
  using view = new RunView(terminal, ["london"], true);
  view.onStatus(offline);
  expect(JSON.parse(terminal.output)).toEqual({
    event: "state",
    time: expect.any(String),
    target: "london",
    state: "offline",
    since: since.toISOString(),
    side: "target",
    error,
    position: "0/15A3F40",
    transactions: 0,
    rows: 0,
  });
});

test("a copy says how far it is, how fast, and how long it will take", () => {
  const copy = {
    tablesDone: 7,
    tablesTotal: 12,
    bytesDone: 30 * 2 ** 20,
    bytesTotal: 120 * 2 ** 20,
    rowsDone: 5000,
  };
  expect(copyText(copy, 10_000)).toBe(
    "7 of 12 tables, 5,000 rows, 30 MB of about 120 MB (25 %), 3.0 MB/s, 30.0 s left",
  );
  expect(copyText({ ...copy, bytesDone: 0, rowsDone: 0 }, 0)).toBe("7 of 12 tables, 0 rows");
  // More was sent than the tables are large on disk.
  expect(copyText({ ...copy, bytesTotal: 1 }, 10_000)).toContain("30 MB of about 30 MB (100 %), 3.0 MB/s");
});
