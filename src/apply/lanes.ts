import type { Lane } from "./lane.ts";

export interface LanesOptions {
  readonly workers: number;
  readonly open: () => Promise<Lane>;
  /** Another cannot be opened, and none will be; called once. */
  readonly onRefused: (reason: Error) => void;
}

/** The sessions that write. All but the first are opened when there is work for them. */
export class Lanes {
  readonly first: Lane;
  readonly #more: Lane[] = [];
  readonly #options: LanesOptions;
  #opening: Promise<void> | undefined;
  #ended = false;

  constructor(first: Lane, options: LanesOptions) {
    this.first = first;
    this.#options = options;
  }

  /** One that is not busy; undefined when there is none, or none yet. */
  free(isBusy: (lane: Lane) => boolean): Lane | undefined {
    const lane = [this.first, ...this.#more].find((one) => !isBusy(one));
    if (lane === undefined && this.#more.length + 1 < this.#options.workers) this.#opening ??= this.#open();
    return lane;
  }

  async end(): Promise<void> {
    this.#ended = true;
    await this.#opening;
    await Promise.all(this.#more.map(({ connection }) => connection.end()));
  }

  async #open(): Promise<void> {
    try {
      const lane = await this.#options.open();
      if (this.#ended) await lane.connection.end();
      else this.#more.push(lane);
      this.#opening = undefined;
    } catch (error) {
      // `#opening` stays: it is not tried again.
      if (!this.#ended) this.#options.onRefused(error as Error);
    }
  }
}
