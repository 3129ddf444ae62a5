import { ErserverError } from "../errors/erserver-error.ts";
import { SQLSTATE } from "../errors/sqlstate.ts";
import { sqlStateOf } from "../postgres/failures.ts";
import { slotFailure } from "../postgres/slots.ts";
import { connectWatched } from "../postgres/watchdog.ts";
import { quoteIdent } from "../quote/ident.ts";
import { slotNameFor } from "../quote/slot-name.ts";
import type { WireConnection } from "../wire/connection.ts";
import type { PipelineContext } from "./open-pipeline.ts";

/** A WAL sender's session on the source. Throws ERS-302 when the role may not have one. */
export async function connectReplication({ config, target }: PipelineContext): Promise<WireConnection> {
  try {
    return await connectWatched(config.source, {
      applicationName: `erserver ${target.name}`,
      replication: true,
      timeoutMs: config.timeoutMs,
    });
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
