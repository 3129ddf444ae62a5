import type { ServerError } from "../errors/server-error.ts";
import {
  COMMAND_COMPLETE,
  DATA_ROW,
  EMPTY_QUERY_RESPONSE,
  readFieldNames,
  readTag,
  readTextRow,
  ROW_DESCRIPTION,
  type TextRow,
} from "./backend.ts";
import type { Replies } from "./channel.ts";
import { type Deferred, deferred } from "./deferred.ts";
import type { FrameReader } from "./frames.ts";
import { QUERY } from "./frontend.ts";
import { FrameWriter } from "./writer.ts";

/** What one statement of a simple query returned. */
export interface SimpleResult {
  readonly rows: readonly TextRow[];
  readonly fields: readonly string[];
  /** The command tag, such as `UPDATE 3`; empty for an empty statement. */
  readonly command: string;
}

/** A Query message. */
export function queryFrame(sql: string): Buffer {
  const writer = new FrameWriter();
  writer.begin(QUERY);
  writer.cstring(sql);
  writer.end();
  return writer.take();
}

/** Collects the answers to a Query message that starts no COPY. */
export class SimpleQuery implements Replies {
  readonly #done: Deferred<readonly SimpleResult[]> = deferred();
  readonly #results: SimpleResult[] = [];
  #rows: TextRow[] = [];
  #fields: readonly string[] = [];
  #error: ServerError | undefined;

  get result(): Promise<readonly SimpleResult[]> {
    return this.#done.promise;
  }

  message(frame: FrameReader): void {
    switch (frame.type) {
      case ROW_DESCRIPTION:
        this.#fields = readFieldNames(frame);
        return;
      case DATA_ROW:
        this.#rows.push(readTextRow(frame));
        return;
      case COMMAND_COMPLETE:
        this.#complete(readTag(frame));
        return;
      case EMPTY_QUERY_RESPONSE:
        this.#complete("");
        return;
      default:
        throw frame.violation("does not answer a query");
    }
  }

  error(error: ServerError): void {
    this.#error ??= error;
  }

  ready(): void {
    if (this.#error === undefined) this.#done.resolve(this.#results);
    else this.#done.reject(this.#error);
  }

  fail(reason: Error): void {
    this.#done.reject(reason);
  }

  #complete(command: string): void {
    this.#results.push({ rows: this.#rows, fields: this.#fields, command });
    this.#rows = [];
    this.#fields = [];
  }
}
