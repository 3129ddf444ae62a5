import type { ServerError } from "../errors/server-error.ts";
import {
  BIND_COMPLETE,
  COMMAND_COMPLETE,
  COPY_DATA,
  COPY_DONE,
  COPY_OUT_RESPONSE,
  DATA_ROW,
  PARSE_COMPLETE,
  readTagCount,
} from "./backend.ts";
import type { Channel, Replies } from "./channel.ts";
import { FrameReader, HEADER } from "./frames.ts";
import { BIND, EXECUTE_FRAME, PARSE, SYNC_FRAME } from "./frontend.ts";
import { queryFrame } from "./simple-query.ts";
import { FrameWriter } from "./writer.ts";

/** Reading stops when this much waits for the consumer. */
const LOOK_AHEAD = 512 * 1024;

/** Statements with many rows: what is sent, the type of the frames that bring them, and what else answers. */
export interface RowsRequest {
  readonly frames: Buffer;
  readonly rowType: number;
  readonly others: readonly number[];
}

/** `COPY … TO STDOUT`: a CopyData frame for each row, and one or two for header and trailer. */
export function copyOutRequest(sql: string): RowsRequest {
  return { frames: queryFrame(sql), rowType: COPY_DATA, others: [COPY_OUT_RESPONSE, COPY_DONE] };
}

/** Queries, in one flight: a DataRow frame for each row, whose values are all text or all binary. */
export function selectRequest(queries: readonly string[], format: "text" | "binary"): RowsRequest {
  const writer = new FrameWriter();
  for (const sql of queries) {
    writer.begin(PARSE);
    writer.cstring("");
    writer.cstring(sql);
    writer.int16(0);
    writer.end();
    writer.begin(BIND);
    writer.cstring("");
    writer.cstring("");
    writer.int16(0);
    writer.int16(0);
    writer.int16(1);
    writer.int16(format === "binary" ? 1 : 0);
    writer.end();
    writer.bytes(EXECUTE_FRAME);
  }
  writer.bytes(SYNC_FRAME);
  return { frames: writer.take(), rowType: DATA_ROW, others: [PARSE_COMPLETE, BIND_COMPLETE] };
}

/**
 * The rows of a statement, or of several one after the other. Iterating yields runs of whole frames, headers included, as they came: those of a COPY
 * can be given to `CopyIn.writeFrames` of another connection, and `framePayloads` finds the payloads.
 *
 * The iteration ends when the server is ready for the next query, and throws its ServerError or the
 * connection's error. Leaving it early destroys the connection: a statement cannot be called off on its own connection.
 */
export class FrameRuns implements AsyncIterable<Buffer> {
  readonly #channel: Channel;
  readonly #runs: { readonly bytes: Buffer; readonly statement: number }[] = [];
  #statement = 0;
  #queued = 0;
  #paused = false;
  #rows = 0;
  #over = false;
  #error: Error | undefined;
  #wake: (() => void) | undefined;

  constructor(channel: Channel, request: RowsRequest) {
    this.#channel = channel;
    const replies = new FrameRunsReplies(request, {
      run: (bytes, statement) => this.#push(bytes, statement),
      over: (rows, error) => this.#end(rows, error),
    });
    if (!channel.begin(replies)) return;
    channel.write(request.frames);
    channel.spoken(replies);
  }

  /** Rows, as the server counted them; 0 until the iteration has ended. */
  get rows(): number {
    return this.#rows;
  }

  /** Which of the statements the run is of that was yielded last, from 0. */
  get statement(): number {
    return this.#statement;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer, void, undefined> {
    try {
      for (;;) {
        const run = this.#runs.shift();
        if (run !== undefined) {
          this.#queued -= run.bytes.length;
          if (this.#paused && this.#queued < LOOK_AHEAD / 2) this.#resume();
          this.#statement = run.statement;
          yield run.bytes;
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
      if (!this.#over) this.#channel.close(this.#channel.lost("the rows of a statement were abandoned"));
    }
  }

  #push(bytes: Buffer, statement: number): void {
    this.#runs.push({ bytes, statement });
    this.#queued += bytes.length;
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

/** Calls `visit` with the payload of every frame in a run of whole frames. */
export function framePayloads(run: Buffer, visit: (bytes: Buffer, start: number, end: number) => void): void {
  const frames = new FrameReader();
  frames.push(run);
  while (frames.next()) visit(frames.bytes, frames.start, frames.end);
}

interface FrameRunsEvents {
  readonly run: (bytes: Buffer, statement: number) => void;
  readonly over: (rows: number, error: Error | undefined) => void;
}

/** Joins neighbouring frames of one piece of memory into runs. */
class FrameRunsReplies implements Replies {
  readonly #request: RowsRequest;
  readonly #events: FrameRunsEvents;
  #bytes: Buffer | undefined;
  #start = 0;
  #end = 0;
  #rows = 0;
  #statement = 0;
  #error: ServerError | undefined;

  constructor(request: RowsRequest, events: FrameRunsEvents) {
    this.#request = request;
    this.#events = events;
  }

  message(frame: FrameReader): void {
    const { rowType, others } = this.#request;
    if (frame.type === rowType) {
      if (frame.bytes !== this.#bytes || frame.start - HEADER !== this.#end) {
        this.chunkEnd();
        this.#bytes = frame.bytes;
        this.#start = frame.start - HEADER;
      }
      this.#end = frame.end;
    } else if (frame.type === COMMAND_COMPLETE) {
      this.chunkEnd();
      this.#statement++;
      this.#rows += Math.max(readTagCount(frame), 0);
    } else if (!others.includes(frame.type)) throw frame.violation("does not answer a statement with rows");
  }

  chunkEnd(): void {
    if (this.#bytes === undefined) return;
    const run = this.#bytes.subarray(this.#start, this.#end);
    this.#bytes = undefined;
    this.#events.run(run, this.#statement);
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
