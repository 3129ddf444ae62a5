import type { TableSelector } from "./config.ts";

/** A pattern's schema and table part, in the form that TableSelector holds. */
export interface TablePattern {
  readonly schema: string;
  readonly table: string;
}

/** The server has 63 bytes, in its own encoding, where a character may be one byte that are two or three in ours. */
const MAX_NAME_CHARACTERS = 63;

/**
 * Reads `schema.table`. As in SQL, names fold to lower case unless they are quoted; as in psql's patterns, a `*` outside quotes
 * stands for any characters. Throws RangeError, which says what is wrong.
 */
export function parseTablePattern(text: string): TablePattern {
  const parts = readParts(text, true);
  const [schema, table] = parts;
  if (table === undefined) throw new RangeError(`has no schema: write "public.${text}"`);
  if (schema === undefined || parts.length > 2)
    throw new RangeError('has too many dots: quote a name that holds one, as in public."a.b"');
  return { schema, table };
}

/** Reads one name, such as a column's: folded to lower case unless quoted. Throws RangeError. */
export function parseName(text: string): string {
  const [name, ...more] = readParts(text, false);
  if (name === undefined || more.length > 0)
    throw new RangeError("is not one name: quote a name that holds a dot");
  return name;
}

/** All of one table, by its names in the catalogue, and of no other. */
export function exactTable({ schema, name }: { schema: string; name: string }): TableSelector {
  const names = { schema: escapeWildcards(schema), table: escapeWildcards(name) };
  return { ...names, columns: undefined, where: undefined };
}

function escapeWildcards(name: string): string {
  return name.replace(/[\\*]/g, "\\$&");
}

/** Whether the selector names one table and no other. */
export function isExact(selector: TablePattern): boolean {
  return !hasWildcard(selector.schema) && !hasWildcard(selector.table);
}

/** Whether a table, by its names in the catalogue, is selected. */
export function matchesSelector(
  selector: Pick<TableSelector, "schema" | "table">,
  schema: string,
  table: string,
): boolean {
  return matchesPart(selector.schema, schema) && matchesPart(selector.table, table);
}

function matchesPart(pattern: string, name: string): boolean {
  const expression = pattern.replace(/\\[^]|[^]/g, (item) =>
    item === "*" ? "[^]*" : escapeForRegExp(item.at(-1) as string),
  );
  return new RegExp(`^${expression}$`).test(name);
}

function escapeForRegExp(character: string): string {
  return character.replace(/[\\^$.*+?()[\]{}|/-]/, "\\$&");
}

function hasWildcard(pattern: string): boolean {
  return pattern.replace(/\\[^]/g, "").includes("*");
}

/** Splits at the dots outside quotes. A quoted `*` or `\` is escaped by a backslash, so that it stands for itself. */
function readParts(text: string, wildcards: boolean): string[] {
  const parts = [""];
  const lengths = [0];
  const append = (piece: string, name: string): void => {
    parts[parts.length - 1] += piece;
    lengths[lengths.length - 1] = (lengths.at(-1) as number) + name.length;
  };
  for (const [token] of text.matchAll(/"(?:[^"]|"")*"|[^]/g)) {
    if (token === ".") {
      parts.push("");
      lengths.push(0);
    } else if (token === '"') {
      throw new RangeError("has a quote that is not closed");
    } else if (token.startsWith('"')) {
      const name = token.slice(1, -1).replaceAll('""', '"');
      append(wildcards ? escapeWildcards(name) : name, name);
    } else if (token === "*" && wildcards) {
      append("*", "");
    } else if (/[\s*?,;'()\\]/.test(token)) {
      throw new RangeError(
        `holds ${JSON.stringify(token)}: quote a name that is not plain letters, digits and underscores`,
      );
    } else {
      append(
        token.replace(/[A-Z]/, (letter) => letter.toLowerCase()),
        token,
      );
    }
  }
  if (parts.includes("")) throw new RangeError("has an empty name");
  if (lengths.some((length) => length > MAX_NAME_CHARACTERS))
    throw new RangeError(`has a name longer than ${MAX_NAME_CHARACTERS} characters`);
  return parts;
}
