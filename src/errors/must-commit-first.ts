import { ErserverError } from "./erserver-error.ts";

/** The transaction is to be written when it has committed, and until then nothing of it. */
export function mustCommitFirst(xid: number, why: string, cause?: unknown): ErserverError {
  return new ErserverError(
    "ERS-510",
    `transaction ${xid} of the source cannot be written while it is in progress: ${why}`,
    {
      subject: `transaction ${xid}`,
      remedy: "Nothing to do: the pipeline is opened anew by itself, and writes it when it has committed.",
      cause,
    },
  );
}
