import type { Conninfo } from "../config/conninfo.ts";
import { connectWire } from "../postgres/connect.ts";
import { quoteLiteral } from "../quote/literal.ts";
import type { WireConnection } from "../wire/connection.ts";

/** Opens a source session that sees exactly the exported snapshot. */
export async function openSnapshotReader(
  conninfo: Conninfo,
  snapshotName: string,
  options: { readonly pipeline: string; readonly timeoutMs: number },
): Promise<WireConnection> {
  const connection = await connectWire(conninfo, { applicationName: `erserver ${options.pipeline} copy`, timeoutMs: options.timeoutMs });
  try {
    await connection.query(
      `begin isolation level repeatable read read only; set transaction snapshot ${quoteLiteral(snapshotName)}`,
    );
    return connection;
  } catch (error) {
    connection.destroy();
    throw error;
  }
}
