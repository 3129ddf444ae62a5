const SIGNALS = { SIGINT: 2, SIGTERM: 15, SIGHUP: 1 } as const;

/**
 * The first SIGINT, SIGTERM or SIGHUP aborts the returned signal, which asks for a clean end; the second ends the process at once,
 * with the exit code that a shell gives for it. The listeners stay for as long as the process lasts: a command that has reported is
 * still to end with its own exit code.
 */
export function onInterrupt(): AbortSignal {
  const controller = new AbortController();
  const listener = (name: NodeJS.Signals): void => {
    if (controller.signal.aborted) process.exit(128 + SIGNALS[name as keyof typeof SIGNALS]);
    controller.abort();
  };
  for (const name of Object.keys(SIGNALS)) process.on(name, listener);
  return controller.signal;
}
