/** What the silence of a connection asks for. */
export type LivenessAction = "none" | "ask" | "dead";

export interface Silence {
  readonly nowMs: number;
  /** When the last bytes arrived, or reading was taken up again after our own back-pressure. */
  readonly lastHeardMs: number;
  /** When a reply was last asked for. */
  readonly lastAskedMs: number;
  /** We have stopped reading ourselves: silence says nothing. */
  readonly paused: boolean;
  /** Longest silence that is borne. */
  readonly timeoutMs: number;
}

/**
 * Half of the timeout in silence: ask for a reply, as the WAL sender itself does. All of it: the connection is
 * dead, however open it looks. A half-open connection is noticed within the timeout and one tick.
 */
export function judgeSilence(silence: Silence): LivenessAction {
  if (silence.paused) return "none";
  const silentMs = silence.nowMs - silence.lastHeardMs;
  if (silentMs >= silence.timeoutMs) return "dead";
  const half = silence.timeoutMs / 2;
  return silentMs >= half && silence.nowMs - silence.lastAskedMs >= half ? "ask" : "none";
}
