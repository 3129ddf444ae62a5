/**
 * A TCP proxy between a client and a PostgreSQL server that does what networks do: it cuts, stalls, slows down, forgets one side. It knows
 * where the protocol's frames begin, so that a test can cut before or after a given message; inside TLS it sees none.
 */
import { once } from "node:events";
import { type Server, type Socket, connect, createServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

export type From = "client" | "server";

export interface FrameRule {
  readonly from: From;
  /** The message type byte, such as `C` for CommandComplete. https://www.postgresql.org/docs/current/protocol-message-formats.html */
  readonly type: string;
  /** Looks closer; `frame` is the whole message, with its type byte and length. */
  readonly match?: (frame: Buffer) => boolean;
  /**
   * What happens to the first frame that matches:
   * - `cut-before`: it never arrives, the connection ends on both sides; `cut-after`: it arrives first;
   * - `cut-inside`: half of it arrives;
   * - `stall`: it waits until `resume()`, and so does all else from this side, on every connection;
   * - `drop`: it is left out.
   */
  readonly action: "cut-before" | "cut-after" | "cut-inside" | "stall" | "drop";
}

interface PendingRule extends FrameRule {
  readonly done: () => void;
}

/** CommandComplete's tag, such as `COMMIT` or `INSERT 0 1`. */
export const commandTag = (frame: Buffer): string => frame.toString("latin1", 5, frame.length - 1);

const OTHER = { client: "server", server: "client" } as const;

/** SSLRequest and GSSENCRequest, which the server answers with one byte. */
const ENCRYPTION_REQUESTS = [80877103, 80877104];

export async function startProxy(options: { target: { host?: string; port: number } }): Promise<Proxy> {
  const proxy = new Proxy({ host: options.target.host ?? "127.0.0.1", port: options.target.port });
  await proxy.accept();
  return proxy;
}

export class Proxy implements Disposable {
  readonly target: { readonly host: string; readonly port: number };
  /** Settings of the network, for both directions of all connections. */
  #delayMs = 0;
  #bytesPerSecond = Infinity;
  readonly #stalled: Record<From, Gate> = { client: new Gate(), server: new Gate() };
  readonly #links = new Set<Link>();
  readonly #rules: PendingRule[] = [];
  #listener: Server | undefined;
  #port = 0;
  #accepted = 0;

  constructor(target: { host: string; port: number }) {
    this.target = target;
  }

  get port(): number {
    return this.#port;
  }

  /** Connections that are open now. */
  get connections(): number {
    return this.#links.size;
  }

  /** Connections that were ever made. */
  get accepted(): number {
    return this.#accepted;
  }

  /** The URL that goes through the proxy. */
  url(original: string): string {
    const url = new URL(original);
    url.hostname = "127.0.0.1";
    url.port = String(this.#port);
    return url.toString();
  }

  /** Cuts all connections at once, with a reset on both sides. */
  cut(): void {
    for (const link of this.#links) link.reset();
  }

  /** Cuts a connection when that many more bytes from this side have passed on it, most often in the middle of a frame. */
  cutAfter(bytes: number, from: From): void {
    for (const link of this.#links) link.allowance[from] = bytes;
  }

  /** Nothing passes any more, and nobody is told. */
  stall(from: From | "both" = "both"): void {
    for (const side of sides(from)) this.#stalled[side].close();
  }

  resume(from: From | "both" = "both"): void {
    for (const side of sides(from)) this.#stalled[side].open();
  }

  /** The other side sees its connections end; this one keeps them, silent for ever. New connections work. */
  halfOpen(keep: From): void {
    for (const link of this.#links) link.forget(OTHER[keep]);
  }

  /** Every piece of data waits this long, up to 64 kB at a time. */
  delay(ms: number): void {
    this.#delayMs = ms;
  }

  throttle(bytesPerSecond: number): void {
    this.#bytesPerSecond = bytesPerSecond;
  }

  /** Does something to the next frame that matches. Resolves when it has happened. */
  next(rule: FrameRule): Promise<void> {
    return new Promise((done) => {
      this.#rules.push({ ...rule, done });
    });
  }

  /** New connections are refused by the system, as when a server is down. */
  refuse(): void {
    this.#listener?.close();
    this.#listener = undefined;
  }

  /** New connections are accepted again, at the same port. */
  async accept(): Promise<void> {
    if (this.#listener !== undefined) return;
    this.#listener = createServer((client) => this.#connected(client));
    this.#listener.listen(this.#port, "127.0.0.1");
    await once(this.#listener, "listening");
    const address = this.#listener.address();
    if (address !== null && typeof address === "object") this.#port = address.port;
  }

  [Symbol.dispose](): void {
    this.refuse();
    this.cut();
    this.resume();
  }

  #connected(client: Socket): void {
    this.#accepted++;
    const link = new Link(client, connect(this.target));
    this.#links.add(link);
    for (const from of ["client", "server"] as const) void this.#pump(link, from);
    void link.closed.then(() => this.#links.delete(link));
  }

  /** Moves one direction of one connection. Reading waits for writing, so back-pressure goes through as in a network. */
  async #pump(link: Link, from: From): Promise<void> {
    const source = link.sockets[from];
    const destination = link.sockets[OTHER[from]];
    try {
      for await (const chunk of source as AsyncIterable<Buffer>) {
        if (this.#delayMs > 0) await sleep(this.#delayMs);
        for (const frames of link.frames(from, chunk, this.#rules.length > 0)) {
          if (!(await this.#pass(link, from, frames))) return;
        }
      }
      await this.#stalled[from].opened;
      if (!link.forgotten) destination.end();
    } catch {
      if (!link.forgotten) link.reset();
    }
  }

  /** False when the connection is no more. */
  async #pass(link: Link, from: From, frame: Buffer): Promise<boolean> {
    const index = this.#rules.findIndex((rule) => matches(rule, from, frame));
    const [rule] = index === -1 ? [] : this.#rules.splice(index, 1);
    switch (rule?.action) {
      case "drop":
        break;
      case "cut-before":
        await link.end();
        break;
      case "cut-inside":
        await this.#write(link, from, frame.subarray(0, Math.ceil(frame.length / 2)));
        await link.end();
        break;
      case "cut-after":
        await this.#write(link, from, frame);
        await link.end();
        break;
      case "stall":
        this.stall(from);
        rule.done();
        return this.#write(link, from, frame);
      case undefined:
        return this.#write(link, from, frame);
    }
    rule?.done();
    return !link.over;
  }

  async #write(link: Link, from: From, data: Buffer): Promise<boolean> {
    const destination = link.sockets[OTHER[from]];
    const step =
      this.#bytesPerSecond < Infinity ? Math.max(1, Math.floor(this.#bytesPerSecond / 20)) : data.length;
    for (let start = 0; start < data.length; start += step) {
      await this.#stalled[from].opened;
      // Reading on would tell the side that is left that all is well.
      if (link.forgotten) await link.closed;
      if (link.over) return false;
      const part = data.subarray(start, start + Math.min(step, link.allowance[from], data.length - start));
      link.allowance[from] -= part.length;
      if (!destination.write(part)) await drained(destination, link.closedSide[OTHER[from]]);
      if (link.allowance[from] === 0) {
        await link.end();
        return false;
      }
      if (step < data.length) await sleep(50);
    }
    return true;
  }
}

/** One client's connection with its connection to the server. */
class Link {
  readonly sockets: Record<From, Socket>;
  readonly closedSide: Record<From, Promise<unknown>>;
  /** Both sides are closed. */
  readonly closed: Promise<unknown>;
  /** Bytes that may still pass. */
  readonly allowance: Record<From, number> = { client: Infinity, server: Infinity };
  over = false;
  /** One side was closed and the other does not know. */
  forgotten = false;
  readonly #pending: Record<From, Buffer> = { client: Buffer.alloc(0), server: Buffer.alloc(0) };
  #startup = true;
  /** One-byte answers to encryption requests that the server has still to give. */
  #answers = 0;
  /** The server has agreed: what follows has no messages that we could see, and passes as it comes. */
  #encrypted = false;

  constructor(client: Socket, server: Socket) {
    this.sockets = { client, server };
    for (const socket of [client, server]) {
      socket.setNoDelay(true);
      socket.on("error", () => {
        if (!this.forgotten) this.reset();
      });
    }
    this.closedSide = { client: closeOf(client), server: closeOf(server) };
    this.closed = Promise.all(Object.values(this.closedSide));
  }

  reset(): void {
    this.over = true;
    for (const socket of Object.values(this.sockets)) socket.resetAndDestroy();
  }

  /** Ends both sides after what was written has left, unless the peer does not read. */
  async end(): Promise<void> {
    this.over = true;
    const sockets = Object.values(this.sockets);
    const flushed = sockets.map((socket) => new Promise<void>((resolve) => socket.end(() => resolve())));
    await Promise.race([Promise.all(flushed), sleep(1000)]);
    for (const socket of sockets) socket.destroy();
  }

  forget(side: From): void {
    this.over = true;
    this.forgotten = true;
    this.sockets[side].resetAndDestroy();
  }

  /** Cuts the stream into whole messages: one at a time, or as many as there are. */
  *frames(from: From, chunk: Buffer, single: boolean): Generator<Buffer> {
    const data = this.#pending[from].length === 0 ? chunk : Buffer.concat([this.#pending[from], chunk]);
    let start = 0;
    let end = 0;
    for (;;) {
      const length = this.#frameLength(from, data.subarray(end));
      if (length === undefined || end + length > data.length) break;
      end += length;
      if (single) {
        yield data.subarray(start, end);
        start = end;
      }
    }
    this.#pending[from] = data.subarray(end);
    if (end > start) yield data.subarray(start, end);
  }

  /** The length of the message at the start of `data`; undefined while too little of it is here. */
  #frameLength(from: From, data: Buffer): number | undefined {
    if (this.#encrypted) return data.length === 0 ? undefined : data.length;
    if (from === "server" && this.#answers > 0) {
      if (data.length === 0) return undefined;
      this.#answers--;
      this.#encrypted = data.toString("latin1", 0, 1) !== "N";
      return 1;
    }
    if (from === "client" && this.#startup) {
      if (data.length < 8) return undefined;
      const length = data.readInt32BE(0);
      if (data.length < length) return length;
      // The start-up packet is the last message without a type byte.
      if (ENCRYPTION_REQUESTS.includes(data.readInt32BE(4))) this.#answers++;
      else this.#startup = false;
      return length;
    }
    return data.length < 5 ? undefined : 1 + data.readInt32BE(1);
  }
}

/** Not `once` of node:events, which rejects when an error comes before the close. */
const closeOf = (socket: Socket): Promise<unknown> =>
  new Promise((resolve) => {
    socket.once("close", resolve);
  });

/** Or closed, which leaves no listener behind. */
async function drained(socket: Socket, closed: Promise<unknown>): Promise<void> {
  const enough = new AbortController();
  const drain = once(socket, "drain", { signal: enough.signal }).catch(() => undefined);
  await Promise.race([drain, closed]);
  enough.abort();
}

class Gate {
  opened: Promise<void> = Promise.resolve();
  #open: (() => void) | undefined;

  close(): void {
    if (this.#open !== undefined) return;
    this.opened = new Promise((resolve) => {
      this.#open = resolve;
    });
  }

  open(): void {
    this.#open?.();
    this.#open = undefined;
  }
}

function matches(rule: FrameRule, from: From, frame: Buffer): boolean {
  return rule.from === from && frame[0] === rule.type.charCodeAt(0) && (rule.match?.(frame) ?? true);
}

const sides = (from: From | "both"): From[] => (from === "both" ? ["client", "server"] : [from]);
