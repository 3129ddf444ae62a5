import { readFileSync } from "node:fs";
import { type AddressInfo, createServer, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { createSecureContext, TLSSocket } from "node:tls";
import { expect, test } from "vitest";
import { tlsFile } from "../../test/support/tls-server.ts";
import { parseConninfo } from "../config/conninfo.ts";
import { systemEnvironment } from "../config/environment.ts";
import { connectControl } from "./connect.ts";

const PLUS = "SCRAM-SHA-256-PLUS";
const PLAIN = "SCRAM-SHA-256";

/** Authentication requests. https://www.postgresql.org/docs/current/protocol-message-formats.html */
const request = (kind: number, rest: Buffer = Buffer.alloc(0)): Buffer => {
  const head = Buffer.alloc(9);
  head.write("R");
  head.writeInt32BE(8 + rest.length, 1);
  head.writeInt32BE(kind, 5);
  return Buffer.concat([head, rest]);
};
const sasl = (...mechanisms: string[]): Buffer =>
  request(10, Buffer.from(`${mechanisms.map((name) => `${name}\0`).join("")}\0`));
const CLEARTEXT = request(3);
const MD5 = request(5, Buffer.from("salt"));
const LET_IN = Buffer.concat([request(0), Buffer.from("Z\0\0\0\u0005I", "latin1")]);

/**
 * What we answer to a server that takes us through these requests, one after each of our messages: of each answer the text after type
 * and length, then the error. The server has a certificate; without `tls` it says that it cannot do TLS.
 */
async function answersTo(
  requests: readonly Buffer[],
  parameters: string,
  { tls = true }: { tls?: boolean } = {},
): Promise<{ answers: string[]; error: unknown }> {
  const answers: string[] = [];
  const talk = (stream: Duplex, first?: Buffer): void => {
    const left = [...requests];
    const reply = (): void => {
      const next = left.shift();
      if (next === undefined) stream.end();
      else stream.write(next);
    };
    // The start-up packet is no answer, and has no type.
    let started = first !== undefined;
    if (started) reply();
    stream.on("data", (bytes: Buffer) => {
      if (started) answers.push(bytes.subarray(5).toString("latin1"));
      started = true;
      reply();
    });
    stream.on("error", () => {});
  };
  const server = createServer((socket: Socket) => {
    socket.on("error", () => {});
    socket.once("data", (first: Buffer) => {
      const asksForTls = first.length === 8;
      if (!asksForTls) talk(socket, first);
      else if (!tls) socket.write("N");
      else {
        socket.write("S");
        const secureContext = createSecureContext({
          cert: readFileSync(tlsFile("server.crt")),
          key: readFileSync(tlsFile("server.key")),
        });
        talk(new TLSSocket(socket, { isServer: true, secureContext }));
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const conninfo = parseConninfo(
    `host=127.0.0.1 port=${port} user=u dbname=d password=hunter2 sslmode=require ${parameters}`,
    { ...systemEnvironment(), env: {}, home: "/nowhere" },
  );
  try {
    const session = await connectControl(conninfo, { applicationName: "test", timeoutMs: 2_000 });
    await session.end();
    return { answers, error: undefined };
  } catch (error) {
    return { answers, error };
  } finally {
    // Waits for the sockets, too: none may be left open.
    await new Promise((resolve) => server.close(resolve));
  }
}

test.each([
  ["prefer", [PLUS, PLAIN], PLUS, "p=tls-server-end-point,,"],
  ["prefer", [PLAIN], PLAIN, "y,,"],
  ["disable", [PLUS, PLAIN], PLAIN, "n,,"],
  ["require", [PLUS, PLAIN], PLUS, "p=tls-server-end-point,,"],
])("channel_binding=%s of what %j offers takes %s", async (mode, offered, mechanism, flag) => {
  const { answers } = await answersTo([sasl(...offered)], `channel_binding=${mode}`);
  expect(answers).toHaveLength(1);
  expect(answers[0]?.split("\0")[0]).toBe(mechanism);
  expect(answers[0]).toContain(flag);
});

const DEMANDED = { code: "ERS-207", message: expect.stringContaining("channel binding is required") };

test.each<[string, Buffer[], number]>([
  ["that offers another mechanism", [sasl(PLAIN)], 0],
  ["that asks for the password", [CLEARTEXT], 0],
  ["that asks for a digest", [MD5], 0],
  ["that lets anybody in", [LET_IN], 0],
  ["that begins well and then asks for the password", [sasl(PLUS), CLEARTEXT], 1],
  ["that begins well and then asks for a digest", [sasl(PLUS), MD5], 1],
  ["that begins well and then offers less", [sasl(PLUS), sasl(PLAIN)], 1],
  ["that begins well and never proves that it knows the password", [sasl(PLUS), LET_IN], 1],
])("channel_binding=require refuses a server %s", async (_, requests, most) => {
  const { answers, error } = await answersTo(requests, "channel_binding=require");
  expect(error).toMatchObject(DEMANDED);
  // At most the first message of SCRAM, which tells nothing.
  expect(answers.length).toBeLessThanOrEqual(most);
  for (const answer of answers) expect(answer.startsWith(`${PLUS}\0`)).toBe(true);
});

test("channel_binding=require refuses a server without TLS, whatever it offers", async () => {
  const { answers, error } = await answersTo([sasl(PLUS, PLAIN)], "sslmode=prefer channel_binding=require", {
    tls: false,
  });
  expect(error).toMatchObject(DEMANDED);
  expect(answers).toEqual([]);
});

test("a server that proves nothing is refused without channel binding, too", async () => {
  const { error } = await answersTo([sasl(PLUS), request(12, Buffer.from("v=AAAA"))], "");
  expect(error).toMatchObject({ code: "ERS-202" });
});
