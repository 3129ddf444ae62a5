import { chown, copyFile, chmod, writeFile } from "node:fs/promises";
import path from "node:path";
import { serverUser } from "../../src/demo/binaries.ts";
import type { Cluster } from "../../src/demo/cluster.ts";
import { openSession } from "./clusters.ts";

/** Path of a file of test/support/tls. */
export function tlsFile(name: string): string {
  return path.join(import.meta.dirname, "tls", name);
}

/**
 * Restarts the server with `ssl = on`, the certificate of `db.erserver.test` and 127.0.0.1, and these lines as its pg_hba.conf. It
 * takes client certificates of `ca.crt`.
 */
export async function turnOnTls(cluster: Cluster, hba: readonly string[]): Promise<void> {
  const files = { "server.crt": "server.crt", "server.key": "server.key", "ca.crt": "root.crt" };
  const user = serverUser();
  for (const [name, copy] of Object.entries(files)) {
    const file = path.join(cluster.dataDirectory, copy);
    await copyFile(tlsFile(name), file);
    await chmod(file, 0o600);
    if (user !== undefined) await chown(file, user.uid, user.gid);
  }
  const client = await openSession(cluster.url());
  try {
    await client.query("alter system set ssl = on");
    await client.query("alter system set ssl_ca_file = 'root.crt'");
  } finally {
    await client.end();
  }
  // Written over, so that it stays the server user's.
  await writeFile(path.join(cluster.dataDirectory, "pg_hba.conf"), `${hba.join("\n")}\n`);
  await cluster.restart();
}
