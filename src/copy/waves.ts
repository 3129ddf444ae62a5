/** `from` refers to `to` by a foreign key. */
export interface Reference {
  readonly from: string;
  readonly to: string;
}

/**
 * Orders tables for a target on which foreign keys are enforced: each wave refers only to tables of the waves before it. Tables that
 * refer to each other in a circle come last, together; the target then has the last word. `keyOf` names a table as references do.
 */
export function copyWaves<Table>(
  tables: readonly Table[],
  keyOf: (table: Table) => string,
  references: readonly Reference[],
): Table[][] {
  const waves: Table[][] = [];
  let rest = [...tables];
  while (rest.length > 0) {
    const waiting = new Set(rest.map(keyOf));
    const blocked = new Set(
      references.filter(({ from, to }) => from !== to && waiting.has(to)).map(({ from }) => from),
    );
    const free = rest.filter((table) => !blocked.has(keyOf(table)));
    waves.push(free.length > 0 ? free : rest);
    rest = free.length > 0 ? rest.filter((table) => blocked.has(keyOf(table))) : [];
  }
  return waves;
}
