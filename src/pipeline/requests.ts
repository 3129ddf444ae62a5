import type { Lsn } from "../change/lsn.ts";
import type { PipelineStore } from "../store/pipeline-store.ts";

const POLL_MS = 500;

/** What other sessions ask of this pipeline by rows on the target, read now and then. */
export class Requests implements AsyncDisposable {
  readonly #store: PipelineStore;
  #timer: NodeJS.Timeout | undefined;
  #reading: Promise<void> | undefined;
  /** Position at which we stand still and have said so. */
  #heldLsn: Lsn | undefined;
  paused = false;
  /** Stand still before the first transaction that commits at or after it. */
  holdLsn: Lsn | undefined;
  /** Stand still where the source is by this exported snapshot; `holdLsn` is the answer then. */
  holdSnapshot: string | undefined;

  private constructor(store: PipelineStore) {
    this.#store = store;
  }

  /** Resolves when what is asked now is known. `onPoll` is called before each further look. */
  static async open(
    store: PipelineStore,
    { onPoll, onError }: { onPoll: () => Promise<void>; onError: (error: Error) => void },
  ): Promise<Requests> {
    const requests = new Requests(store);
    await requests.#read();
    requests.#timer = setInterval(() => {
      requests.#reading ??= onPoll()
        .then(() => requests.#read())
        .catch((error: unknown) => onError(error as Error))
        .finally(() => {
          requests.#reading = undefined;
        });
    }, POLL_MS);
    return requests;
  }

  /** Tells whoever asked that everything before `lsn` is applied and nothing behind it. */
  async reportHeld(lsn: Lsn): Promise<void> {
    if (this.#heldLsn === lsn) return;
    this.#heldLsn = lsn;
    await this.#store.reportHeld(lsn);
  }

  async #read(): Promise<void> {
    const { paused, holdLsn, holdSnapshot, answered } = await this.#store.requests();
    this.paused = paused;
    this.holdLsn = holdLsn;
    this.holdSnapshot = holdSnapshot;
    if (holdLsn !== this.#heldLsn) this.#heldLsn = undefined;
    // Asked once more, by somebody else, for where we still stand.
    else if (holdLsn !== undefined && !answered) await this.#store.reportHeld(holdLsn);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    await this.#reading;
  }
}
