/** Moves a server's counter of transactions, whose end nobody can wait for: as `pg_resetwal`, which embedded servers do not bring. */
import { chown, readFile, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import type { Cluster } from "../../src/demo/cluster.ts";
import { openSession } from "./clusters.ts";

/** In pg_control, from 15 on what a server that was stopped cleanly begins with: `checkPointCopy.nextXid` and `.oldestXid`. */
const NEXT_XID = 40 + 24;
const OLDEST_XID = 40 + 44;

/** Transactions in a file of pg_xact, two bits for each. */
const XACT_FILE = 1_048_576;

/**
 * Stops and starts the server; its next transaction has the number `next`. For a server in whose other databases than `postgres`
 * nothing was written since initdb.
 */
export async function setNextTransaction(cluster: Cluster, next: number): Promise<void> {
  const client = await openSession(cluster.url());
  // A row whose transaction seems to lie in the future would not be seen.
  await client.query("vacuum (freeze)");
  await client.end();
  await cluster.stop();

  const file = path.join(cluster.dataDirectory, "global/pg_control");
  const control = await readFile(file);
  const crc = crcOffset(control);
  control.writeBigUInt64LE(BigInt(next), NEXT_XID);
  control.writeUInt32LE(next - XACT_FILE, OLDEST_XID);
  control.writeUInt32LE(crc32c(control.subarray(0, crc)), crc);
  await writeFile(file, control);

  const name = Math.floor(next / XACT_FILE)
    .toString(16)
    .toUpperCase()
    .padStart(4, "0");
  const xact = path.join(cluster.dataDirectory, "pg_xact", name);
  await writeFile(xact, Buffer.alloc(XACT_FILE / 4));
  const { uid, gid } = await stat(file);
  await chown(xact, uid, gid);
  await cluster.start();
}

/** The checksum is the last of the fields, of which every version has more. */
function crcOffset(control: Buffer): number {
  for (let offset = 200; offset < 500; offset += 4)
    if (control.readUInt32LE(offset) === crc32c(control.subarray(0, offset))) return offset;
  throw new Error("pg_control has no checksum");
}

function crc32c(data: Buffer): number {
  let crc = 0xffffffff;
  for (const byte of data) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}
