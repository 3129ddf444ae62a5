import { forgetIfRestored } from "../capture/trigger/captured-tables.ts";
import { captureExists } from "../capture/trigger/consumers.ts";
import { type Conninfo, describeConninfo } from "../config/conninfo.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import type { ControlSession, SessionOptions } from "../postgres/connect.ts";
import { readSourceFacts, type SourceFacts } from "../postgres/server-facts.ts";
import { type SlotName, slotNameFor } from "../quote/slot-name.ts";
import { migrate } from "../store/migrate.ts";
import { connectDatabase } from "./sides.ts";

/** Of a command on the source about a target that files are carried to. */
export interface CarrierSourceOptions {
  readonly source: Conninfo;
  /** The target's name, by which the source knows it. */
  readonly name: string;
  /** Longest silence of the server, in milliseconds. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

/** A source that records changes. */
export interface CarrierSourceSession extends AsyncDisposable {
  readonly source: ControlSession;
  readonly facts: SourceFacts;
  /** The target's name there. */
  readonly consumer: SlotName;
}

export function carrierSession({
  name,
  timeoutMs,
  signal,
}: Omit<CarrierSourceOptions, "source">): SessionOptions {
  return { applicationName: `erserver ${name} carrier`, timeoutMs, signal };
}

/** Throws ERS-407 when nothing of the source is recorded. */
export async function openCarrierSource(options: CarrierSourceOptions): Promise<CarrierSourceSession> {
  const source = await connectDatabase(options.source, "source", carrierSession(options));
  try {
    const where = describeConninfo(options.source);
    if (!(await captureExists(source))) throw notInitialized(where);
    await migrate(source, where, "source");
    await forgetIfRestored(source);
    return {
      source,
      facts: await readSourceFacts(source),
      consumer: slotNameFor(options.name),
      [Symbol.asyncDispose]: () => source.end(),
    };
  } catch (error) {
    await source.end();
    throw error;
  }
}

function notInitialized(where: string): ErserverError {
  return new ErserverError("ERS-407", `${where}: no changes are recorded in this database`, {
    subject: where,
    remedy: "Name the source; there, MasterInit and MasterAddTable for each table come first.",
  });
}
