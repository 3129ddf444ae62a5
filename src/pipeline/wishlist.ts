import type { Lsn } from "../change/lsn.ts";
import type { PipelineStore } from "../store/pipeline-store.ts";

const POLL_MS = 500;

/** Reads, now and then, what other sessions have asked of this pipeline by rows on the target. */
export class Wishlist implements AsyncDisposable {
  readonly #store: PipelineStore;
  readonly #timer: NodeJS.Timeout;
  #reading: Promise<void> | undefined;
  paused = false;
  /** Stand still before the first transaction that commits at or after it. */
  holdLsn: Lsn | undefined;

  constructor(store: PipelineStore, onError: (error: Error) => void) {
    this.#store = store;
    this.#timer = setInterval(() => {
      this.#reading ??= this.#read()
        .catch((error: unknown) => onError(error as Error))
        .finally(() => {
          this.#reading = undefined;
        });
    }, POLL_MS);
  }

  /** Tells whoever asked that everything before `lsn` is applied and nothing behind it. */
  async reportHeld(lsn: Lsn): Promise<void> {
    await this.#store.reportHeld(lsn);
  }

  async #read(): Promise<void> {
    const wishes = await this.#store.wishes();
    this.paused = wishes.paused;
    this.holdLsn = wishes.holdLsn;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    await this.#reading;
  }
}
