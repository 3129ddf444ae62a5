import { once } from "node:events";
import { type Server, type Socket, connect, createServer } from "node:net";

/** On the way in one direction; more is not read, as behind a link of limited bandwidth. */
const IN_FLIGHT = 16 * 1024 * 1024;

/** A long line to a server: everything arrives a fixed time later, in order, and as much at a time as was sent. */
export class Link implements Disposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server) {
    this.#server = server;
  }

  /** @param delayMs each way. */
  static async start(port: number, delayMs: number): Promise<Link> {
    const server = createServer((near) => {
      const far = connect(port, "127.0.0.1");
      for (const socket of [near, far]) {
        socket.setNoDelay(true);
        link.#sockets.add(socket);
        socket.on("close", () => link.#sockets.delete(socket));
        socket.on("error", () => {
          near.destroy();
          far.destroy();
        });
      }
      carry(near, far, delayMs);
      carry(far, near, delayMs);
    });
    const link = new Link(server);
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return link;
  }

  get port(): number {
    return (this.#server.address() as { port: number }).port;
  }

  [Symbol.dispose](): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }
}

function carry(from: Socket, to: Socket, delayMs: number): void {
  let waiting = 0;
  const later = (deliver: () => void): void => {
    setTimeout(deliver, delayMs);
  };
  from.on("data", (chunk: Buffer) => {
    waiting += chunk.length;
    if (waiting > IN_FLIGHT) from.pause();
    later(() => {
      // What the receiver does not take counts as on the way.
      to.write(chunk, () => {
        waiting -= chunk.length;
        if (from.isPaused() && waiting < IN_FLIGHT / 2) from.resume();
      });
    });
  });
  from.on("end", () => later(() => to.end()));
}
