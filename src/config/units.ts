const DURATION_UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };
const SIZE_UNITS: Readonly<Record<string, number>> = { B: 1, kB: 2 ** 10, MB: 2 ** 20, GB: 2 ** 30 };

export const DURATION = /^(\d{1,9})(ms|s|m|h)$/;
/** Units as in PostgreSQL's own settings: kB is 1024 bytes, and the letters' case matters. */
export const SIZE = /^(\d{1,12})(B|kB|MB|GB)$/;

/** Milliseconds of a text that matches DURATION. */
export function parseDuration(text: string): number {
  return parse(DURATION, DURATION_UNITS, text);
}

/** Bytes of a text that matches SIZE. */
export function parseSize(text: string): number {
  return parse(SIZE, SIZE_UNITS, text);
}

function parse(pattern: RegExp, units: Readonly<Record<string, number>>, text: string): number {
  const [, amount, unit = ""] = pattern.exec(text) ?? [];
  return Number(amount) * (units[unit] ?? Number.NaN);
}
