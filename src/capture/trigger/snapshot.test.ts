import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { notSeenBy, parseSnapshot, seesAllOf, type XidSnapshot } from "./snapshot.ts";

/** txid_visible_in_snapshot. */
const sees = ({ xmax, inProgress }: XidSnapshot, xid: bigint): boolean =>
  xid < xmax && !inProgress.includes(xid);

/** The transaction in front of xmax has ended: it is the latest that has. */
const snapshot = fc
  .tuple(fc.nat(20), fc.uniqueArray(fc.nat(20), { maxLength: 5 }))
  .map(([length, running]) => {
    const xmax = 100n + BigInt(length);
    const inProgress = running.map((at) => 100n + BigInt(at)).filter((xid) => xid < xmax - 1n);
    inProgress.sort((a, b) => Number(a - b));
    return parseSnapshot(`${inProgress[0] ?? xmax}:${xmax}:${inProgress.join(",")}`);
  });

describe("a snapshot", () => {
  test("T12: is read with numbers of 64 bits", () => {
    expect(parseSnapshot("8589934592:18446744073709551615:8589934592,8589934600")).toEqual({
      text: "8589934592:18446744073709551615:8589934592,8589934600",
      xmax: 18446744073709551615n,
      inProgress: [8589934592n, 8589934600n],
    });
  });

  test.each(["", "1:2", "1:2:3,", "1:2:x", "-1:2:", "1:2: 3"])("%j is none", (text) => {
    expect(() => parseSnapshot(text)).toThrow(RangeError);
  });

  test("as a condition finds what it does not see", () => {
    expect(notSeenBy(parseSnapshot("5:9:5,7"), "xid")).toBe("(xid >= 9 or xid in (5, 7))");
    expect(notSeenBy(parseSnapshot("9:9:"), "xid")).toBe("xid >= 9");
  });

  test("sees all that another sees exactly when there is no transaction that only the other sees", () => {
    fc.assert(
      fc.property(snapshot, snapshot, (one, other) => {
        const xids = Array.from({ length: 30 }, (_, at) => 95n + BigInt(at));
        expect(seesAllOf(one, other)).toBe(xids.every((xid) => !sees(other, xid) || sees(one, xid)));
      }),
      { numRuns: 2_000 },
    );
  });
});
