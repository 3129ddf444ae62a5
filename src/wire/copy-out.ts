import type { ServerError } from "../errors/server-error.ts";
import { COMMAND_COMPLETE, COPY_DATA, COPY_DONE, COPY_OUT_RESPONSE, readTagCount } from "./backend.ts";
import type { Channel, Replies } from "./channel.ts";
import { FrameReader, HEADER } from "./frames.ts";
import { queryFrame } from "./simple-query.ts";

/** Reading stops when this much waits for the consumer. */
const LOOK_AHEAD = 512 * 1024;

/**
 * `COPY … TO STDOUT`. Iterating yields runs of whole CopyData frames, headers included, as they came: the same
 * bytes can be given to `CopyIn.writeFrames` of another connection, and `copyPayloads` finds the payloads.
 *
 * The iteration ends when the server is ready for the next query, and throws its ServerError or the
 * connection's error. Leaving it early destroys the connection: a COPY cannot be called off on its own connection.
 */
export class CopyOut implements AsyncIterable<Buffer> {
  readonly #channel: Channel;
  readonly #runs: Buffer[] = [];
  #queued = 0;
  #paused = false;
  #rows = 0;
  #over = false;
  #error: Error | undefined;
  #wake: (() => void) | undefined;

  constructor(channel: Channel, sql: string) {
    this.#channel = channel;
    const replies = new CopyOutReplies({
      run: (run) => this.#push(run),
      over: (rows, error) => this.#end(rows, error),
    });
    if (!channel.begin(replies)) return;
    channel.write(queryFrame(sql));
    channel.spoken(replies);
  }

  /** Rows copied, as the server counted them; 0 until the iteration has ended. */
  get rows(): number {
    return this.#rows;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer, void, undefined> {
    try {
      for (;;) {
        const run = this.#runs.shift();
        if (run !== undefined) {
          this.#queued -= run.length;
          if (this.#paused && this.#queued < LOOK_AHEAD / 2) this.#resume();
          yield run;
        } else if (this.#over) {
          break;
        } else {
          await new Promise<void>((wake) => {
            this.#wake = wake;
          });
        }
      }
      if (this.#error !== undefined) throw this.#error;
    } finally {
      if (!this.#over) this.#channel.close(this.#channel.lost("a COPY was abandoned"));
    }
  }

  #push(run: Buffer): void {
    this.#runs.push(run);
    this.#queued += run.length;
    if (!this.#paused && this.#queued > LOOK_AHEAD) {
      this.#paused = true;
      this.#channel.pause();
    }
    this.#notify();
  }

  #end(rows: number, error: Error | undefined): void {
    this.#over = true;
    this.#rows = rows;
    this.#error = error;
    if (this.#paused) this.#resume();
    this.#notify();
  }

  #resume(): void {
    this.#paused = false;
    this.#channel.resume();
  }

  #notify(): void {
    this.#wake?.();
    this.#wake = undefined;
  }
}

/** Calls `visit` with the payload of every CopyData frame in a run of whole frames. */
export function copyPayloads(run: Buffer, visit: (bytes: Buffer, start: number, end: number) => void): void {
  const frames = new FrameReader();
  frames.push(run);
  while (frames.next()) visit(frames.bytes, frames.start, frames.end);
}

interface CopyOutEvents {
  readonly run: (run: Buffer) => void;
  readonly over: (rows: number, error: Error | undefined) => void;
}

/** Joins neighbouring frames of one piece of memory into runs. */
class CopyOutReplies implements Replies {
  readonly #events: CopyOutEvents;
  #bytes: Buffer | undefined;
  #start = 0;
  #end = 0;
  #rows = 0;
  #error: ServerError | undefined;

  constructor(events: CopyOutEvents) {
    this.#events = events;
  }

  message(frame: FrameReader): void {
    switch (frame.type) {
      case COPY_DATA:
        if (frame.bytes !== this.#bytes || frame.start - HEADER !== this.#end) {
          this.chunkEnd();
          this.#bytes = frame.bytes;
          this.#start = frame.start - HEADER;
        }
        this.#end = frame.end;
        return;
      case COPY_OUT_RESPONSE:
      case COPY_DONE:
        return;
      case COMMAND_COMPLETE:
        this.#rows = Math.max(readTagCount(frame), 0);
        return;
      default:
        throw frame.violation("does not answer COPY TO STDOUT");
    }
  }

  chunkEnd(): void {
    if (this.#bytes === undefined) return;
    const run = this.#bytes.subarray(this.#start, this.#end);
    this.#bytes = undefined;
    this.#events.run(run);
  }

  error(error: ServerError): void {
    this.#error ??= error;
  }

  ready(): void {
    this.chunkEnd();
    this.#events.over(this.#rows, this.#error);
  }

  fail(reason: Error): void {
    this.#events.over(0, reason);
  }
}
