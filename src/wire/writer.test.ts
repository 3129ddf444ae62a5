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
    const payload = fc.uint8Array({ maxLength: 20_000, size: "max" }).map((bytes) => Buffer.from(bytes));
    fc.assert(
      fc.property(fc.array(fc.tuple(payload, fc.boolean()), { maxLength: 60 }), (parts) => {
        const writer = new FrameWriter();
        const taken: Buffer[] = [];
        for (const [bytes, take] of parts) {
          writer.begin(0x64);
          writer.bytes(bytes);
          writer.end();
          if (take) taken.push(writer.take());
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

  test("a frame may not be taken before it is closed", () => {
    const writer = new FrameWriter();
    writer.begin(0x64);
    expect(() => writer.take()).toThrow("still open");
  });
});
