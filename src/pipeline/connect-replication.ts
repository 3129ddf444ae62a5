import { ErserverError } from "../errors/erserver-error.ts";
import { SQLSTATE } from "../errors/sqlstate.ts";
import { sqlStateOf } from "../postgres/failures.ts";
import { slotFailure } from "../postgres/slots.ts";
import { connectWatched } from "../postgres/watchdog.ts";
import { quoteIdent } from "../quote/ident.ts";
import { slotNameFor } from "../quote/slot-name.ts";
import type { WireConnection } from "../wire/connection.ts";
import { type PipelineContext, sessionOptions } from "./context.ts";

/** A WAL sender's session on the source. Throws ERS-302 when the role may not have one. */
export async function connectReplication(context: PipelineContext): Promise<WireConnection> {
  const { config, target } = context;
  try {
    return await connectWatched(config.source, { ...sessionOptions(context), replication: true });
  } catch (error) {
    if (sqlStateOf(error) !== SQLSTATE.insufficientPrivilege)
      throw slotFailure(error, slotNameFor(target.name));
    const { user } = config.source;
    throw new ErserverError("ERS-302", `role "${user}" may not replicate: ${(error as Error).message}`, {
      subject: user,
      remedy: `Run on the source as superuser: ALTER ROLE ${quoteIdent(user)} REPLICATION; (managed hosts: GRANT rds_replication or the like).`,
      cause: error,
    });
  }
}
