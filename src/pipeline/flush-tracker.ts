import { type Lsn, ZERO_LSN } from "../change/lsn.ts";

/**
 * Decides what the source may be told: a position counts only once the target has flushed the commit that
 * carries it. With `synchronous_commit = off` a crash of the target can take a commit back, position and all.
 */
export class FlushTracker {
  readonly #pending: { readonly sourceLsn: Lsn; readonly targetLsn: Lsn }[] = [];
  #durableLsn: Lsn = ZERO_LSN;

  /** Source position that the target can no longer lose; zero while none is known. */
  get durableLsn(): Lsn {
    return this.#durableLsn;
  }

  /** True when some commit is not known to be flushed. */
  get waiting(): boolean {
    return this.#pending.length > 0;
  }

  /** A commit for `sourceLsn` ends before `targetLsn` in the target's WAL. */
  committed(sourceLsn: Lsn, targetLsn: Lsn): void {
    this.#pending.push({ sourceLsn, targetLsn });
  }

  /** The target's WAL is flushed up to here. */
  flushed(targetFlushedLsn: Lsn): void {
    let done = 0;
    for (const { sourceLsn, targetLsn } of this.#pending) {
      if (targetLsn > targetFlushedLsn) break;
      this.#durableLsn = sourceLsn;
      done++;
    }
    this.#pending.splice(0, done);
  }
}
