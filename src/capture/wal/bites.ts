import type { Lsn } from "../../change/lsn.ts";

const MB = 1024 * 1024;

/** A backlog of so much WAL is worth the bulk gear. */
export const FAR_BEHIND = 64 * MB;

/** Less than this is left to the stream. */
const NEARLY_THERE = 4 * MB;

const FIRST_BITE = 16 * MB;
const MOST_BITE = 128 * MB;

/** Most WAL to be read again for a bite, as a multiple of the largest. */
const MOST_AGAIN = 4;

/** A bite whose changes are less than this part of its WAL is of no use. */
const LEAST_SHARE = 1 / 16;

/**
 * Bytes of a message, on average: what the gear spares is a send() for each, and from here on what it costs, temporary files on the
 * source among it, is more than that.
 */
const LARGE_MESSAGE = 256;

/** Where a slot stands and what there is. */
export interface SlotPosition {
  /** Decoding begins here, with every bite. */
  readonly restartLsn: Lsn;
  /** Changes are given from here on. */
  readonly confirmedLsn: Lsn;
  /** End of the source's flushed WAL. */
  readonly endLsn: Lsn;
}

/** A bite that was read, in bytes. */
export interface Bite {
  /** WAL that it covered. */
  readonly wal: number;
  /** Changes that came of it. */
  readonly data: number;
  /** Bytes of a message, on average. */
  readonly message: number;
  /** What it was meant to cover, WAL permitting. */
  readonly size: number;
}

/**
 * How much WAL to read next, in bytes; undefined when streaming is better. Bites double: the first gives the target something to do,
 * large ones read less of the WAL again, as the source decodes each from `restartLsn`, which moves only where all
 * transactions were known to have ended. One that is open for long pins it.
 */
export function nextBite(at: SlotPosition, last: Bite | undefined): Pick<Bite, "wal" | "size"> | undefined {
  const left = Number(at.endLsn - at.confirmedLsn);
  if (left < NEARLY_THERE) return undefined;
  if (Number(at.confirmedLsn - at.restartLsn) > MOST_AGAIN * MOST_BITE) return undefined;
  // A large transaction has not ended, or there is little for us.
  if (last !== undefined && last.data < last.wal * LEAST_SHARE) return undefined;
  if (last !== undefined && last.message >= LARGE_MESSAGE) return undefined;
  const size = last === undefined ? FIRST_BITE : Math.min(last.size * 2, MOST_BITE);
  // No small rest.
  return { size, wal: left < size * 1.5 ? left : size };
}
