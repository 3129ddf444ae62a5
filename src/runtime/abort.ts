/** Does something when the signal is aborted, at once if it is already, until disposed of. */
export function onAbort(signal: AbortSignal | undefined, action: () => void): Disposable {
  if (signal?.aborted === true) action();
  else signal?.addEventListener("abort", action);
  return { [Symbol.dispose]: () => signal?.removeEventListener("abort", action) };
}
