declare const quotedIdentBrand: unique symbol;

/** An identifier, or a qualified name, in the form that goes into SQL text. Only this file makes one. */
export type QuotedIdent = string & { readonly [quotedIdentBrand]: true };

/**
 * Quotes a name exactly as it stands in the catalogue, always with quotes, so that no list of reserved words
 * is needed. Throws RangeError for a name that no PostgreSQL object can have. The length is not looked at: the
 * server has 63 bytes for it in the database's encoding, and we do not know how many those are.
 */
export function quoteIdent(name: string): QuotedIdent {
  if (name === "") throw new RangeError("a name is empty");
  if (name.includes("\0")) throw new RangeError("a name holds a NUL character");
  return `"${name.replaceAll('"', '""')}"` as QuotedIdent;
}

/** `"schema"."name"`, for a table, type or sequence. */
export function quoteQualified(schema: string, name: string): QuotedIdent {
  return `${quoteIdent(schema)}.${quoteIdent(name)}` as QuotedIdent;
}
