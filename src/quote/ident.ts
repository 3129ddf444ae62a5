declare const quotedIdentBrand: unique symbol;

/** An identifier, or a qualified name, in the form that goes into SQL text. Only this file makes one. */
export type QuotedIdent = string & { readonly [quotedIdentBrand]: true };

/** NAMEDATALEN - 1: a longer name would be cut by the server, and so name something else. */
export const MAX_IDENT_BYTES = 63;

/**
 * Quotes a name exactly as it stands in the catalogue, always with quotes, so that no list of reserved words
 * is needed. Throws RangeError for a name that no PostgreSQL object can have.
 */
export function quoteIdent(name: string): QuotedIdent {
  if (name === "") throw new RangeError("a name is empty");
  if (name.includes("\0")) throw new RangeError("a name holds a NUL character");
  if (Buffer.byteLength(name) > MAX_IDENT_BYTES) {
    throw new RangeError(`a name is longer than ${MAX_IDENT_BYTES} bytes: ${JSON.stringify(name)}`);
  }
  return `"${name.replaceAll('"', '""')}"` as QuotedIdent;
}

/** `"schema"."name"`, for a table, type or sequence. */
export function quoteQualified(schema: string, name: string): QuotedIdent {
  return `${quoteIdent(schema)}.${quoteIdent(name)}` as QuotedIdent;
}
