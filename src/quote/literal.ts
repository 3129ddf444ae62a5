/**
 * Quotes text as an SQL string constant. A backslash switches to the E'' form, so the result means the same
 * whatever standard_conforming_strings is. Throws RangeError for NUL, which PostgreSQL text cannot hold.
 */
export function quoteLiteral(text: string): string {
  if (text.includes("\0")) throw new RangeError("a text holds a NUL character");
  const quoted = `'${text.replaceAll("'", "''")}'`;
  return text.includes("\\") ? `E${quoted.replaceAll("\\", "\\\\")}` : quoted;
}
