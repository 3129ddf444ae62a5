import { SQLSTATE } from "../../errors/sqlstate.ts";
import { connectFailure } from "../../postgres/failures.ts";
import { publicationChanged } from "../../postgres/publications.ts";
import { slotFailure } from "../../postgres/slots.ts";
import type { WireConnection } from "../../wire/connection.ts";

export interface CaptureSubject {
  /** `role@host:port/database`. */
  readonly subject: string;
  readonly slot: string;
  readonly publications: readonly string[];
}

/** Names what the source objects to. */
export function captureFailure(error: unknown, { subject, slot, publications }: CaptureSubject): unknown {
  const named = slotFailure(error, slot);
  if (named !== error || !(error instanceof Error)) return named;
  if (/publication ".*" does not exist/.test(error.message))
    return publicationChanged(publications[0] ?? "", error.message, error);
  return connectFailure(error, subject) ?? error;
}

/**
 * From 18 on a publication that is missing is only a warning (LoadPublications in pgoutput.c), and its changes are
 * left out: the connection must end before their commit counts.
 */
export function heedNotices(options: {
  readonly connection: WireConnection;
  readonly publications: readonly string[];
}): void {
  const { connection, publications } = options;
  connection.onNotice = ({ code, routine, message }) => {
    if (routine === "LoadPublications" || code === SQLSTATE.objectNotInPrerequisiteState)
      connection.destroy(publicationChanged(publications[0] ?? "", message));
  };
}
