import { parseTargetSnapshot, seesAllOf } from "../capture/trigger/snapshot.ts";
import { maxLsn, ZERO_LSN } from "../change/lsn.ts";
import { type Conninfo, describeConninfo } from "../config/conninfo.ts";
import { lockQuery } from "../postgres/advisory-lock.ts";
import { connectControl, type ControlSession, type SessionOptions } from "../postgres/connect.ts";
import { readServerFacts, readSourceFacts, requireUsableServer } from "../postgres/server-facts.ts";
import { OLDEST_SOURCE_MAJOR, OLDEST_TARGET_MAJOR } from "../postgres/server-version.ts";
import { readWalSender } from "../postgres/slots.ts";
import { usableSchemaExists } from "../store/migrate.ts";
import { PipelineStore, type Registration, requireSameSource } from "../store/pipeline-store.ts";
import type { CommandOptions } from "./context.ts";
import type { Mark } from "./marker.ts";

/** Sessions of a command that looks at a pipeline from outside, whoever serves it. */
export interface Sides extends AsyncDisposable {
  readonly source: ControlSession;
  readonly target: ControlSession;
  readonly store: PipelineStore;
  /** Undefined while the target knows nothing of the pipeline. Throws ERS-410 when it was registered with another source. */
  registration(): Promise<Registration | undefined>;
}

export type Side = "source" | "target";

/** A session of a command about a target. */
export async function connectPrimary(
  { config, target, signal }: CommandOptions,
  side: Side,
): Promise<ControlSession> {
  return connectDatabase(side === "source" ? config.source : target.conninfo, side, {
    applicationName: `erserver ${target.name} command`,
    timeoutMs: config.timeoutMs,
    ...(signal === undefined ? {} : { signal }),
  });
}

/** A session with a primary of a version that we work with. */
export async function connectDatabase(
  conninfo: Conninfo,
  side: Side,
  options: SessionOptions,
): Promise<ControlSession> {
  const session = await connectControl(conninfo, options);
  try {
    const oldest = side === "source" ? OLDEST_SOURCE_MAJOR : OLDEST_TARGET_MAJOR;
    requireUsableServer(await readServerFacts(session), describeConninfo(conninfo), oldest);
    return session;
  } catch (error) {
    await session.end();
    throw error;
  }
}

export async function connectSides(options: CommandOptions): Promise<Sides> {
  const { name } = options.target;
  const target = await connectPrimary(options, "target");
  try {
    const source = await connectPrimary(options, "source");
    try {
      const facts = await readSourceFacts(source);
      const registration = async (): Promise<Registration | undefined> => {
        const found = await readRegistration(target, options);
        if (found !== undefined) requireSameSource(found, facts, name);
        return found;
      };
      await registration();
      return {
        source,
        target,
        store: new PipelineStore(target, name),
        registration,
        [Symbol.asyncDispose]: async () => {
          await source.end();
          await target.end();
        },
      };
    } catch (error) {
      await source.end();
      throw error;
    }
  } catch (error) {
    await target.end();
    throw error;
  }
}

/** Undefined when the target knows nothing of the pipeline. */
export async function readRegistration(
  session: ControlSession,
  { target: { name, conninfo } }: CommandOptions,
): Promise<Registration | undefined> {
  const known = await usableSchemaExists(session, describeConninfo(conninfo));
  return known ? new PipelineStore(session, name).registration() : undefined;
}

/** True while some replicator holds the pipeline's lock on the target. */
export async function isServed(target: ControlSession, name: string): Promise<boolean> {
  return (await target.query(lockQuery("apply", name))).length > 0;
}

/** Whether the target has what had committed by then: by its own record, or by what a running replicator has told the source since. */
export async function hasReached(
  { source, store }: Sides,
  { slot, capture }: Registration,
  { lsn, snapshot }: Mark,
): Promise<boolean> {
  const progress = await store.progress();
  if (capture === "trigger")
    return (
      progress?.snapshot !== undefined && seesAllOf(parseTargetSnapshot(progress.snapshot).base, snapshot)
    );
  const recorded = progress?.lsn ?? ZERO_LSN;
  const sender = await readWalSender(source, slot);
  return maxLsn(recorded, sender?.replayLsn ?? recorded) >= lsn;
}
