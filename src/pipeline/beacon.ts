import type { Conninfo } from "../config/conninfo.ts";
import { connectControl, type ControlSession } from "../postgres/connect.ts";

/** application_name holds 63 bytes: prefix, eight characters of time, and what fits of the target's name. */
const PREFIX = "erserver offline ";
const NAME_LENGTH = 36;

/**
 * A target that is offline cannot say since when, and nothing is kept on the replicator's disk. So the replicator
 * keeps one idle session on the source whose application_name says it, for anybody's `status`.
 */
export async function lightBeacon(
  source: Conninfo,
  target: string,
  since: Date,
  timeoutMs: number,
): Promise<ControlSession> {
  return connectControl(source, {
    applicationName: `${PREFIX}${since.getTime().toString(36)} ${target.slice(0, NAME_LENGTH)}`,
    timeoutMs,
  });
}

/** Since when a running replicator misses the target; undefined when none says so. */
export async function readBeacon(source: ControlSession, target: string): Promise<Date | undefined> {
  const rows = await source.query<{ name: string }>(
    "select application_name as name from pg_catalog.pg_stat_activity where application_name like $1",
    [`${PREFIX}%`],
  );
  for (const { name } of rows) {
    const [time = "", ...rest] = name.slice(PREFIX.length).split(" ");
    if (rest.join(" ") === target.slice(0, NAME_LENGTH)) return new Date(Number.parseInt(time, 36));
  }
  return undefined;
}
