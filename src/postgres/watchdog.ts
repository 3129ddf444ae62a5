import type { Conninfo } from "../config/conninfo.ts";
import { describeConninfo } from "../config/conninfo.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import type { WireConnection } from "../wire/connection.ts";
import { connectControl, connectWire, type SessionOptions } from "./connect.ts";

export interface WatchdogOptions {
  readonly connection: WireConnection;
  readonly conninfo: Conninfo;
  readonly applicationName: string;
  /** A connection that is dead is noticed within it and one probe. */
  readonly timeoutMs: number;
}

/** Opens a data-plane connection, and sees to it that nobody waits for ever for an answer that cannot come. */
export async function connectWatched(conninfo: Conninfo, options: SessionOptions): Promise<WireConnection> {
  const connection = await connectWire(conninfo, options);
  const { applicationName, timeoutMs } = options;
  // Ends by itself with the connection.
  void new Watchdog({ connection, conninfo, applicationName, timeoutMs });
  return connection;
}

const UNREACHABLE: ReadonlySet<string> = new Set(["ERS-201", "ERS-204"]);

/** What a second session sees of the backend that we wait for. */
export interface Sighting {
  /** pg_stat_activity.state, undefined when the backend is gone. */
  readonly state: string | undefined;
  readonly stateChange: string | undefined;
}

/**
 * Silence of a server that owes us an answer can mean hard work or a dead connection, and TCP may take a quarter
 * of an hour to tell. A second session asks: a backend that works is left alone, however long it takes; one that
 * is gone, has answered already, or cannot be asked about is given up.
 */
class Watchdog implements Disposable {
  readonly #options: WatchdogOptions;
  readonly #timer: NodeJS.Timeout;
  #probing = false;
  #last: Sighting | undefined;

  constructor(options: WatchdogOptions) {
    this.#options = options;
    this.#timer = setInterval(() => void this.#tick(), options.timeoutMs / 8);
    void options.connection.closed.then(() => this[Symbol.dispose]());
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  async #tick(): Promise<void> {
    const { connection, timeoutMs } = this.#options;
    const silentMs = performance.now() - connection.lastReceivedAt;
    if (!connection.listening || silentMs < timeoutMs / 2) {
      this.#last = undefined;
      return;
    }
    if (this.#probing) return;
    this.#probing = true;
    try {
      const sighting = await this.#look();
      if (isGivenUp(sighting, this.#last))
        connection.destroy(this.#silent(`the server's session is ${sighting.state ?? "gone"}`));
      this.#last = sighting;
    } catch (error) {
      // Any other answer, such as that the server is full, comes from one that is alive.
      if (error instanceof ErserverError && UNREACHABLE.has(error.code)) connection.destroy(error);
    } finally {
      this.#probing = false;
    }
  }

  async #look(): Promise<Sighting> {
    const { connection, conninfo, applicationName, timeoutMs } = this.#options;
    await using session = await connectControl(conninfo, {
      applicationName: `${applicationName} watchdog`,
      timeoutMs: timeoutMs / 2,
    });
    const [row] = await session.query(
      "select state, state_change::text as state_change from pg_catalog.pg_stat_activity where pid = $1",
      [connection.backendPid],
    );
    return { state: row?.["state"] ?? undefined, stateChange: row?.["state_change"] ?? undefined };
  }

  #silent(why: string): ErserverError {
    const where = describeConninfo(this.#options.conninfo);
    return new ErserverError("ERS-204", `${where}: no answer arrives, and ${why}`, {
      subject: where,
      remedy: "Nothing to do when the network comes back: it reconnects by itself.",
    });
  }
}

/** Idle twice in the same state: the answer was sent and is lost, or our question never arrived. */
function isGivenUp(now: Sighting, before: Sighting | undefined): boolean {
  if (now.state === undefined) return true;
  return (
    now.state.startsWith("idle") && before?.state === now.state && before.stateChange === now.stateChange
  );
}
