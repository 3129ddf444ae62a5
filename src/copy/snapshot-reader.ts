import { type Conninfo, describeConninfo } from "../config/conninfo.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { ServerError } from "../errors/server-error.ts";
import { connectWatched } from "../postgres/watchdog.ts";
import { quoteLiteral } from "../quote/literal.ts";
import type { WireConnection } from "../wire/connection.ts";

/** Opens a source session that sees exactly the exported snapshot. */
export async function openSnapshotReader(
  conninfo: Conninfo,
  snapshotName: string,
  options: { readonly pipeline: string; readonly timeoutMs: number },
): Promise<WireConnection> {
  const connection = await connectWatched(conninfo, {
    applicationName: `erserver ${options.pipeline} copy`,
    timeoutMs: options.timeoutMs,
  });
  try {
    await connection.query(
      `begin isolation level repeatable read read only; set transaction snapshot ${quoteLiteral(snapshotName)}`,
    );
    return connection;
  } catch (error) {
    connection.destroy();
    // 22023 up to 15, 42704 from 16 on: no such snapshot.
    if (error instanceof ServerError && /^(?:22023|42704)$/.test(error.code))
      throw snapshotGone(conninfo, error);
    throw error;
  }
}

function snapshotGone(conninfo: Conninfo, cause: ServerError): ErserverError {
  return new ErserverError(
    "ERS-204",
    `the session that exports the snapshot of the first copy is gone: ${cause.message}`,
    {
      subject: describeConninfo(conninfo),
      remedy: "Nothing to do: the tables that are not copied yet are copied from another snapshot.",
      cause,
    },
  );
}
