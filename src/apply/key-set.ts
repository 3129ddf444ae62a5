/** What a set has room for at first: a power of two. */
const FIRST_SLOTS = 64;

/**
 * A set of 64-bit hashes of keys, in 8 bytes each and half as much again to spare: a million of them are no million objects.
 * Two keys may have one hash, once in 2⁶⁴ pairs: who asks then waits without need.
 */
export class KeySet {
  /** Pairs of high and low halves; 0, 0 is a free slot. */
  #slots = new Int32Array(2 * FIRST_SLOTS);
  #mask = FIRST_SLOTS - 1;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  add(high: number, low: number): void {
    if (2 * (this.#size + 1) > this.#mask) this.#grow();
    if (this.#put(high, low)) this.#size++;
  }

  has(high: number, low: number): boolean {
    const slots = this.#slots;
    const at = this.#find(high | 0, filled(high, low));
    return (slots[at] as number) !== 0 || (slots[at + 1] as number) !== 0;
  }

  /** Whether some key is in both. */
  meets(other: KeySet): boolean {
    if (other.#size < this.#size) return other.meets(this);
    const slots = this.#slots;
    for (let at = 0; at < slots.length; at += 2) {
      const high = slots[at] as number;
      const low = slots[at + 1] as number;
      if ((high !== 0 || low !== 0) && other.has(high, low)) return true;
    }
    return false;
  }

  #put(high: number, low: number): boolean {
    const slots = this.#slots;
    const at = this.#find(high | 0, filled(high, low));
    if (slots[at] !== 0 || slots[at + 1] !== 0) return false;
    slots[at] = high;
    slots[at + 1] = filled(high, low);
    return true;
  }

  /** Where the hash is, or the free slot where it would be. */
  #find(high: number, low: number): number {
    const slots = this.#slots;
    let slot = low & this.#mask;
    for (;;) {
      const at = 2 * slot;
      const there = slots[at + 1] as number;
      if ((there === low && slots[at] === high) || (there === 0 && slots[at] === 0)) return at;
      slot = (slot + 1) & this.#mask;
    }
  }

  #grow(): void {
    const old = this.#slots;
    this.#slots = new Int32Array(2 * old.length);
    this.#mask = 2 * (this.#mask + 1) - 1;
    for (let at = 0; at < old.length; at += 2)
      if (old[at] !== 0 || old[at + 1] !== 0) this.#put(old[at] as number, old[at + 1] as number);
  }
}

/** The hash that would look like a free slot shares one with another. */
const filled = (high: number, low: number): number => (high === 0 && low === 0 ? 1 : low | 0);
