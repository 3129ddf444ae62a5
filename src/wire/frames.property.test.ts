import * as fc from "fast-check";
import { describe, expect, test } from "vitest";

import { ErserverError } from "../errors/erserver-error.ts";
import { FrameReader, HEADER } from "./frames.ts";

interface Frame {
  readonly type: number;
  readonly payload: Buffer;
}

const frame: fc.Arbitrary<Frame> = fc.record({
  type: fc.integer({ min: 0, max: 255 }),
  payload: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
});

function encode(frames: readonly Frame[]): Buffer {
  return Buffer.concat(
    frames.flatMap(({ type, payload }) => {
      const header = Buffer.alloc(HEADER);
      header[0] = type;
      header.writeInt32BE(payload.length + 4, 1);
      return [header, payload];
    }),
  );
}

/** Cuts at the given places, taken modulo the length. */
function cut(stream: Buffer, places: readonly number[]): Buffer[] {
  const at = [0, ...places.map((place) => place % (stream.length + 1)), stream.length].toSorted(
    (a, b) => a - b,
  );
  return at.slice(1).map((end, i) => Buffer.from(stream.subarray(at[i], end)));
}

describe("FrameReader", () => {
  test("finds the same frames however the stream is cut, and never touches them afterwards", () => {
    fc.assert(
      fc.property(
        fc.array(frame, { maxLength: 20 }),
        fc.array(fc.nat(), { maxLength: 40 }),
        (frames, places) => {
          const stream = encode(frames);
          const reader = new FrameReader();
          const found: Frame[] = [];
          const positions: number[] = [];
          for (const chunk of cut(stream, places)) {
            reader.push(chunk);
            while (reader.next()) {
              positions.push(reader.position);
              found.push({ type: reader.type, payload: reader.bytes.subarray(reader.start, reader.end) });
            }
          }
          expect(reader.aligned).toBe(true);
          expect(found).toEqual(frames);
          for (const [i, position] of positions.entries())
            expect(position).toBe(encode(frames.slice(0, i)).length);
        },
      ),
      { numRuns: 500 },
    );
  });

  test("a stream with a flipped bit gives frames that lie in it, or ERS-602", () => {
    fc.assert(
      fc.property(
        fc.array(frame, { minLength: 1, maxLength: 10 }),
        fc.nat(),
        fc.array(fc.nat(), { maxLength: 5 }),
        (frames, bit, places) => {
          const stream = encode(frames);
          const at = (bit >> 3) % stream.length;
          stream.writeUInt8(stream.readUInt8(at) ^ (1 << (bit & 7)), at);
          const reader = new FrameReader();
          let bytes = 0;
          try {
            for (const chunk of cut(stream, places)) {
              reader.push(chunk);
              while (reader.next()) {
                expect(reader.position).toBe(bytes);
                expect(reader.end).toBeLessThanOrEqual(reader.bytes.length);
                bytes += HEADER + reader.end - reader.start;
              }
            }
            expect(bytes).toBeLessThanOrEqual(stream.length);
          } catch (error) {
            expect(error).toBeInstanceOf(ErserverError);
            expect(error).toMatchObject({ code: "ERS-602" });
          }
        },
      ),
      { numRuns: 500 },
    );
  });
});
