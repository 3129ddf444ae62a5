import type { RowChange } from "../change/change.ts";
import { COLUMN_BINARY, COLUMN_NULL, COLUMN_TEXT, COLUMN_UNCHANGED, TupleReader } from "../change/tuple.ts";
import { BINARY_FORMAT, TEXT_FORMAT, type Batch } from "../wire/batch.ts";
import type { ParameterSource } from "./statements.ts";

/** PostgreSQL's limit is 1,600 columns a table. */
const MOST_COLUMNS = 1_664;

/** Where the columns of one row image lie: one walk, then any order. */
class ImageIndex {
  readonly kinds = new Uint8Array(MOST_COLUMNS);
  readonly starts = new Int32Array(MOST_COLUMNS);
  readonly lengths = new Int32Array(MOST_COLUMNS);
  columns = 0;
  /** Some column was not sent. */
  incomplete = false;
  readonly #reader = new TupleReader();

  load(bytes: Buffer, start: number): void {
    const reader = this.#reader.reset(bytes, start);
    this.columns = reader.columns;
    this.incomplete = false;
    for (let index = 0; index < reader.columns; index++) {
      reader.next();
      this.kinds[index] = reader.kind;
      this.starts[index] = reader.start;
      this.lengths[index] = reader.length;
      if (reader.kind === COLUMN_UNCHANGED) this.incomplete = true;
    }
  }
}

/** Copies column values of a change from where they arrived into Bind messages: one memcpy a value, no strings. */
export class RowEncoder {
  readonly newImage = new ImageIndex();
  readonly oldImage = new ImageIndex();
  #bytes: Buffer = Buffer.alloc(0);

  load(change: RowChange): void {
    this.#bytes = change.bytes;
    if (change.newStart >= 0) this.newImage.load(change.bytes, change.newStart);
    if (change.oldStart >= 0) this.oldImage.load(change.bytes, change.oldStart);
  }

  /** True when the value was sent: it is a value or NULL. */
  isSent(image: "new" | "old", index: number): boolean {
    return (image === "new" ? this.newImage : this.oldImage).kinds[index] !== COLUMN_UNCHANGED;
  }

  /** Names the new image's columns that were not sent, by index: one statement is prepared for each such set. */
  unsentMask(): string {
    if (!this.newImage.incomplete) return "";
    const unsent: number[] = [];
    for (let index = 0; index < this.newImage.columns; index++)
      if (!this.isSent("new", index)) unsent.push(index);
    return unsent.join(",");
  }

  /** Bind and Execute. */
  write(batch: Batch, statement: string, parameters: readonly ParameterSource[]): void {
    const bytes = this.#bytes;
    batch.startBind(statement, parameters.length);
    for (const { image, index } of parameters) {
      const kinds = image === "new" ? this.newImage.kinds : this.oldImage.kinds;
      batch.format(kinds[index] === COLUMN_BINARY ? BINARY_FORMAT : TEXT_FORMAT);
    }
    batch.startValues(parameters.length);
    for (const { image, index } of parameters) {
      const from = image === "new" ? this.newImage : this.oldImage;
      const kind = from.kinds[index];
      if (kind === COLUMN_TEXT || kind === COLUMN_BINARY)
        batch.value(bytes, from.starts[index] as number, from.lengths[index] as number);
      else if (kind === COLUMN_NULL) batch.nullValue();
      else throw new Error(`column ${index} of the ${image} row image was not sent`);
    }
    batch.endBind();
    batch.execute();
  }
}
