import { describe, expect, test } from "vitest";

import { FrameReader } from "./frames.ts";

function header(type: string, length: number): Buffer {
  const bytes = Buffer.alloc(5);
  bytes.write(type);
  bytes.writeInt32BE(length, 1);
  return bytes;
}

describe("FrameReader", () => {
  test("a frame that lies in one chunk is a view of it", () => {
    const chunk = Buffer.concat([header("d", 7), Buffer.from("abc")]);
    const reader = new FrameReader();
    reader.push(chunk);
    expect(reader.next()).toBe(true);
    expect(reader).toMatchObject({ bytes: chunk, start: 5, end: 8, position: 0 });
    expect(reader.next()).toBe(false);
  });

  test("a frame of many chunks is put together in memory of exactly its size, and let go of afterwards", () => {
    const size = 64 * 1024 * 1024;
    const reader = new FrameReader();
    reader.push(header("d", size + 4));
    expect(reader.next()).toBe(false);
    const piece = Buffer.alloc(64 * 1024, "x");
    for (let sent = piece.length; sent < size; sent += piece.length) {
      reader.push(piece);
      expect(reader.next()).toBe(false);
    }
    expect(reader.aligned).toBe(false);
    reader.push(piece);
    expect(reader.next()).toBe(true);
    expect(reader.bytes).toHaveLength(size + 5);
    expect(reader.bytes.indexOf("y", 5)).toBe(-1);
    expect(reader.next()).toBe(false);
    expect(reader.bytes).toHaveLength(0);
  });

  test.for([0, 3, -1, 0x4000_0004])(
    "a length of %d is a protocol violation, also when it comes in pieces",
    (length) => {
      const bytes = header("D", length);
      const whole = new FrameReader();
      whole.push(bytes);
      const pieces = new FrameReader();
      pieces.push(bytes.subarray(0, 2));
      expect(pieces.next()).toBe(false);
      pieces.push(bytes.subarray(2));
      for (const reader of [whole, pieces]) {
        expect(() => reader.next()).toThrow(`message 'D' at byte 0 claims a length of ${length}`);
      }
    },
  );
});
