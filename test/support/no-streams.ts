/** For a decoder's sink that does not care for transactions in progress. */
const ignore = (): void => {};

export const NO_STREAMS = {
  streamStart: ignore,
  streamStop: ignore,
  streamCommit: ignore,
  streamAbort: ignore,
};
