/**
 * Standard error without its lines of progress. Whatever takes seconds prints some where lines cannot be drawn again:
 * on a busy machine any command does.
 */
export function withoutProgress(errors: string): string {
  return errors.replaceAll(
    /^(?:\d\d:\d\d:\d\d {2}\S+: [\d,]+ of [\d,]+ tables?, .*|[\d,]+ rows?, [\d,]+ a second)\n/gm,
    "",
  );
}
