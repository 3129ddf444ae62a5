import { PassThrough } from "node:stream";

import { describe, expect, test } from "vitest";

import { WireConnection } from "./connection.ts";

function connectTo(answer: Buffer): WireConnection {
  const socket = new PassThrough();
  const connection = new WireConnection(socket);
  socket.emit("data", answer);
  return connection;
}

/** What no real server does. */
describe("a server that breaks the protocol", () => {
  test("an impossible length destroys the connection and names type and offset", async () => {
    const connection = connectTo(Buffer.from([0x4e, 0, 0, 0, 5, 0, 0x44, 0, 0, 0, 3]));
    expect(await connection.closed).toMatchObject({
      code: "ERS-602",
      message: "message 'D' at byte 6 claims a length of 3",
    });
  });

  test("a message that answers nothing destroys the connection", async () => {
    const connection = connectTo(Buffer.from([0x5a, 0, 0, 0, 5, 0x49]));
    expect(await connection.closed).toMatchObject({
      code: "ERS-602",
      message: "message 'Z' at byte 0 came without a question",
    });
  });
});
