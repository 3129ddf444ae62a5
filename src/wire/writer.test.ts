import * as fc from "fast-check";
import { describe, expect, test } from "vitest";

import { FrameReader } from "./frames.ts";
import { FrameWriter } from "./writer.ts";

describe("FrameWriter", () => {
  test("writes every kind of part in network byte order and patches the length", () => {
    const writer = new FrameWriter();
    writer.begin(0x42);
    writer.int8(0xff);
    writer.int16(-2);
    writer.int32(-3);
    writer.int64(-4n);
    writer.int16(0xfffe);
    writer.int32(0xfffffffd);
    writer.int64(0xfffffffffffffffcn);
    writer.cstring("é");
    writer.end();
    const numbers = "ff fffe fffffffd fffffffffffffffc fffe fffffffd fffffffffffffffc".replaceAll(" ", "");
    expect(writer.take().toString("hex")).toBe(`4200000024${numbers}c3a900`);
  });

  test("refuses a string that the server would see cut short", () => {
    const writer = new FrameWriter();
    writer.begin(0x51);
    expect(() => writer.cstring("a\0b")).toThrow(RangeError);
  });

  test("what has been taken is never written again, and what is taken in parts is the same as the whole", () => {
    const filled = fc.tuple(fc.integer({ min: 60_000, max: 200_000 }), fc.nat(255));
    const payload = fc
      .oneof(fc.uint8Array({ maxLength: 20_000, size: "max" }), fc.constant(new Uint8Array(0)), filled)
      .map((bytes) => (Array.isArray(bytes) ? Buffer.alloc(...bytes) : Buffer.from(bytes)));
    const how = fc.constantFrom("go on", "take", "take runs");
    fc.assert(
      fc.property(fc.array(fc.tuple(payload, how, fc.boolean()), { maxLength: 60 }), (parts) => {
        const writer = new FrameWriter();
        const taken: Buffer[] = [];
        for (const [bytes, then, lasting] of parts) {
          const before = writer.buffered;
          writer.begin(0x64);
          if (lasting) writer.lasting(bytes, 0, bytes.length);
          else writer.bytes(bytes);
          writer.end();
          expect(writer.buffered).toBe(before + 5 + bytes.length);
          if (then === "take") taken.push(writer.take());
          if (then === "take runs") taken.push(...writer.takeRuns());
        }
        taken.push(writer.take());
        expect(writer.buffered).toBe(0);
        const reader = new FrameReader();
        reader.push(Buffer.concat(taken));
        for (const [bytes] of parts) {
          expect(reader.next()).toBe(true);
          expect(reader.bytes.subarray(reader.start, reader.end).equals(bytes)).toBe(true);
        }
        expect(reader.next()).toBe(false);
      }),
      { numRuns: 100 },
    );
  });

  test("copies small values and hands large ones out as they are", () => {
    const writer = new FrameWriter();
    const [small, large] = [Buffer.alloc(64 * 1024 - 1, "s"), Buffer.alloc(64 * 1024, "l")];
    writer.begin(0x64);
    writer.lasting(small, 0, small.length);
    writer.lasting(large, 0, large.length);
    writer.int8(1);
    writer.end();
    const runs = writer.takeRuns();
    expect(runs.map(({ length }) => length)).toEqual([5 + small.length, large.length, 1]);
    expect(runs[1]?.buffer).toBe(large.buffer);
    expect(runs[0]?.readUInt32BE(1)).toBe(4 + small.length + large.length + 1);
  });

  test("a frame may not be taken before it is closed", () => {
    const writer = new FrameWriter();
    writer.begin(0x64);
    expect(() => writer.take()).toThrow("still open");
  });
});
