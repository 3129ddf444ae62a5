declare const lsnBrand: unique symbol;

/**
 * A position in the write-ahead log: a byte offset, unsigned 64 bits.
 * Compare Lsn values with `<` and `===`; never compare their text, which is unpadded.
 */
export type Lsn = bigint & { readonly [lsnBrand]: true };

/** "No position": PostgreSQL's InvalidXLogRecPtr. */
export const ZERO_LSN = 0n as Lsn;

const LSN_TEXT = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/;

/** Reads the text form of type pg_lsn, such as `16/B374D848`. Throws RangeError on anything else. */
export function parseLsn(text: string): Lsn {
  const match = LSN_TEXT.exec(text);
  if (match === null) throw new RangeError(`not a log position: ${JSON.stringify(text)}`);
  return ((BigInt(`0x${match[1]}`) << 32n) | BigInt(`0x${match[2]}`)) as Lsn;
}

/** The text form that PostgreSQL prints: upper case, unpadded. */
export function formatLsn(lsn: Lsn): string {
  return `${(lsn >> 32n).toString(16).toUpperCase()}/${(lsn & 0xffffffffn).toString(16).toUpperCase()}`;
}

export function maxLsn(a: Lsn, b: Lsn): Lsn {
  return a > b ? a : b;
}
