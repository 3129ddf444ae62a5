const SIGNALS = { SIGINT: 2, SIGTERM: 15, SIGHUP: 1 } as const;

/** A signal that becomes aborted when the process is asked to end. */
export interface Interrupt extends Disposable {
  readonly signal: AbortSignal;
}

/**
 * The first SIGINT, SIGTERM or SIGHUP asks for a clean end; the second ends the process at once, with the exit code that a shell
 * gives for it. Until it is disposed of.
 */
export function onInterrupt(): Interrupt {
  const controller = new AbortController();
  const listener = (name: NodeJS.Signals): void => {
    if (controller.signal.aborted) process.exit(128 + SIGNALS[name as keyof typeof SIGNALS]);
    controller.abort();
  };
  const names = Object.keys(SIGNALS) as NodeJS.Signals[];
  for (const name of names) process.on(name, listener);
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      for (const name of names) process.removeListener(name, listener);
    },
  };
}
