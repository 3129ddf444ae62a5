import { type Conninfo } from "../config/conninfo.ts";
import { connectControl, type ControlSession } from "../postgres/connect.ts";

/** application_name holds 63 bytes: prefix, eight characters of time, and what fits of the target's name. */
const PREFIX = "erserver offline ";
const NAME_LENGTH = 36;

export interface BeaconOptions {
  readonly source: Conninfo;
  /** The target that is missed. */
  readonly target: string;
  readonly timeoutMs: number;
}

interface Light {
  readonly abort: AbortController;
  /** Undefined when the source did not answer. */
  readonly session: Promise<ControlSession | undefined>;
}

/**
 * A target that is offline cannot say since when, and nothing is kept on the replicator's disk. So the replicator
 * keeps one idle session on the source whose application_name says it, for anybody's `status`.
 */
export class Beacon {
  readonly #options: BeaconOptions;
  #lit: Light | undefined;

  constructor(options: BeaconOptions) {
    this.#options = options;
  }

  /** Does nothing while it is lit. When the source does not answer either, nobody can be told. */
  light(since: Date): void {
    if (this.#lit !== undefined) return;
    const { source, target, timeoutMs } = this.#options;
    const abort = new AbortController();
    const session = connectControl(source, {
      applicationName: `${PREFIX}${since.getTime().toString(36)} ${target.slice(0, NAME_LENGTH)}`,
      timeoutMs,
      signal: abort.signal,
    }).catch(() => undefined);
    const lit = { abort, session };
    this.#lit = lit;
    void this.#forgetWhenGone(lit);
  }

  async #forgetWhenGone(lit: Light): Promise<void> {
    await (
      await lit.session
    )?.closed;
    if (this.#lit === lit) this.#lit = undefined;
  }

  async putOut(): Promise<void> {
    const lit = this.#lit;
    this.#lit = undefined;
    lit?.abort.abort();
    await (await lit?.session)?.end();
  }
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
