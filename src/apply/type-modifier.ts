/** OIDs of the built-in types that take a modifier, and of their arrays. https://www.postgresql.org/docs/current/catalog-pg-attribute.html (atttypmod) */
const ELEMENT_OF: Readonly<Record<number, number>> = {
  1014: 1042,
  1015: 1043,
  1115: 1114,
  1183: 1083,
  1185: 1184,
  1187: 1186,
  1231: 1700,
  1270: 1266,
  1561: 1560,
  1563: 1562,
};
const BPCHAR = 1042;
const VARCHAR = 1043;
const BIT = 1560;
const VARBIT = 1562;
const NUMERIC = 1700;
const INTERVAL = 1186;
const TIMES = new Set([1083, 1114, 1184, 1266]);

/** Lengths are kept with the size of a header added (VARHDRSZ). */
const HEADER = 4;
/** Digits behind the second of a time without a modifier. */
const FULL_PRECISION = 6;

interface NumericSize {
  readonly precision: number;
  readonly scale: number;
}

/** numeric's modifier holds both, the scale as 11 bits with a sign (numeric_typmod_scale in numeric.c, since 15; before it had none). */
function numericSize(modifier: number): NumericSize {
  const packed = modifier - HEADER;
  return { precision: (packed >> 16) & 0xffff, scale: ((packed & 0x7ff) ^ 1024) - 1024 };
}

/**
 * Whether the target's modifier would refuse, round, cut or pad values that the source's allows. `type` is the OID of both,
 * of a domain the one that it is over; -1 is no modifier. Types of extensions are left to the target.
 */
export function narrows(type: number, source: number, target: number): boolean {
  if (source === target || target === -1) return false;
  const element = ELEMENT_OF[type] ?? type;
  if (TIMES.has(element)) return (source === -1 ? FULL_PRECISION : source) > target;
  switch (element) {
    case NUMERIC: {
      if (source === -1) return true;
      const [from, to] = [numericSize(source), numericSize(target)];
      return from.scale > to.scale || from.precision - from.scale > to.precision - to.scale;
    }
    case VARCHAR:
    case VARBIT:
      return source === -1 || source > target;
    case BPCHAR:
    case BIT:
    case INTERVAL:
      return true;
    default:
      return false;
  }
}

/** As it stands behind the type's name: `(12,4)`; empty for none, and for those that are not simply numbers. */
export function modifierText(type: number, modifier: number): string {
  if (modifier === -1) return "";
  const element = ELEMENT_OF[type] ?? type;
  if (element === NUMERIC) {
    const { precision, scale } = numericSize(modifier);
    return `(${precision},${scale})`;
  }
  if (element === VARCHAR || element === BPCHAR) return `(${modifier - HEADER})`;
  return element === BIT || element === VARBIT || TIMES.has(element) ? `(${modifier})` : "";
}
