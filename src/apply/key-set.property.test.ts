import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { KeySet } from "./key-set.ts";

type Hash = readonly [high: number, low: number];

/** 0, 0 shares with 0, 1. */
const named = ([high, low]: Hash): string => (high === 0 && low === 0 ? "0,1" : `${high},${low}`);

function setOf(hashes: readonly Hash[]): { keys: KeySet; model: Set<string> } {
  const keys = new KeySet();
  const model = new Set<string>();
  for (const hash of hashes) {
    keys.add(...hash);
    model.add(named(hash));
  }
  return { keys, model };
}

/** The slot comes from the low bits: many share them, at the end of the table as well. */
const half = fc.oneof(
  fc.integer(),
  fc.integer({ min: -3, max: 3 }),
  fc.nat(1_000).map((upper) => upper << 16),
  fc.nat(1_000).map((upper) => ~(upper << 16)),
);
const hash: fc.Arbitrary<Hash> = fc.tuple(half, half);
/** A set grows when it has 32, 64, 128 and 256. */
const hashes = fc.array(hash, { maxLength: 600, size: "max" });

describe("a set of hashes", () => {
  test("holds what was added, each once, and nothing else", () => {
    fc.assert(
      fc.property(hashes, hashes, (added, others) => {
        const { keys, model } = setOf([...added, ...added.slice(0, 50)]);
        expect(keys.size).toBe(model.size);
        const swapped = added.map(([high, low]): Hash => [low, high]);
        for (const each of [...added, ...others, ...swapped, [0, 0], [0, 1]] as Hash[])
          expect([each, keys.has(...each)]).toEqual([each, model.has(named(each))]);
      }),
      { numRuns: 100 },
    );
  });

  test("meets another that has one of its hashes, whichever is asked, and however large they are", () => {
    fc.assert(
      fc.property(hashes, hashes, fc.array(hash, { maxLength: 2 }), (some, others, common) => {
        const a = setOf([...some, ...common]);
        const b = setOf([...others.filter((each) => !a.model.has(named(each))), ...common]);
        const expected = common.length > 0;
        expect([...a.model].some((name) => b.model.has(name))).toBe(expected);
        expect([a.keys.meets(b.keys), b.keys.meets(a.keys)]).toEqual([expected, expected]);
      }),
      { numRuns: 500 },
    );
  });

  test("meets itself unless it is empty", () => {
    const keys = new KeySet();
    expect(keys.meets(keys)).toBe(false);
    keys.add(0, 0);
    expect(keys.meets(keys)).toBe(true);
  });

  test("takes what would look like a free slot for another", () => {
    const { keys } = setOf([[0, 0]]);
    expect([keys.size, keys.has(0, 0), keys.has(0, 1), keys.has(1, 0)]).toEqual([1, true, true, false]);
    keys.add(0, 1);
    expect(keys.size).toBe(1);
    const { keys: other } = setOf([[0, 1]]);
    expect([keys.meets(other), other.meets(keys)]).toEqual([true, true]);
  });
});
