import { describe, expect, test } from "vitest";
import type { Lsn } from "../../change/lsn.ts";
import { type Bite, nextBite, type SlotPosition } from "./bites.ts";

const MB = 1024 * 1024;

/** Positions in MB. */
const at = (restart: number, confirmed: number, end: number): SlotPosition => ({
  restartLsn: BigInt(restart * MB) as Lsn,
  confirmedLsn: BigInt(confirmed * MB) as Lsn,
  endLsn: BigInt(end * MB) as Lsn,
});

describe("bites", () => {
  test("double up to a bound, and take the rest when it is small", () => {
    const sizes: number[] = [];
    let last: Bite | undefined;
    for (let here = 0; here < 1000; here += (last?.wal ?? 0) / MB) {
      const next = nextBite(at(here, here, 1000), last);
      if (next === undefined) break;
      sizes.push(next.wal / MB);
      last = { ...next, data: next.wal, message: 100 };
    }
    expect(sizes).toEqual([16, 32, 64, 128, 128, 128, 128, 128, 128, 120]);
  });

  test("end when little is left", () => {
    expect(nextBite(at(0, 997, 1000), undefined)).toBeUndefined();
    expect(nextBite(at(0, 1000, 1000), undefined)).toBeUndefined();
  });

  test("end when too much would be read again: an open transaction pins where decoding begins", () => {
    expect(nextBite(at(0, 512, 2000), undefined)).toBeDefined();
    expect(nextBite(at(0, 513, 2000), undefined)).toBeUndefined();
  });

  test("end when hardly anything came of the last: a large transaction, which a stream brings in parts", () => {
    const last = { wal: 16 * MB, size: 16 * MB, data: 0, message: 100 };
    expect(nextBite(at(0, 16, 2000), last)).toBeUndefined();
    expect(nextBite(at(0, 16, 2000), { ...last, data: 2 * MB })).toBeDefined();
  });

  test("end when messages are large: there are few calls to spare", () => {
    const last = { wal: 16 * MB, size: 16 * MB, data: 16 * MB, message: 255 };
    expect(nextBite(at(0, 16, 2000), last)).toBeDefined();
    expect(nextBite(at(0, 16, 2000), { ...last, message: 256 })).toBeUndefined();
  });
});
