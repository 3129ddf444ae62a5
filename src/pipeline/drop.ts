import { describeConninfo } from "../config/conninfo.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { SQLSTATE } from "../errors/sqlstate.ts";
import type { ControlSession } from "../postgres/connect.ts";
import { sqlStateOf } from "../postgres/failures.ts";
import { dropPublications, publicationNames } from "../postgres/publications.ts";
import { dropSlot } from "../postgres/slots.ts";
import { readSourceFacts } from "../postgres/server-facts.ts";
import { slotNameFor } from "../quote/slot-name.ts";
import { usableSchemaExists } from "../store/migrate.ts";
import { PipelineStore, requireSameSource } from "../store/pipeline-store.ts";
import type { CommandOptions } from "./context.ts";
import { connectPrimary, isServed } from "./sides.ts";

export interface DropOptions extends CommandOptions {
  /** Go on when a side cannot be reached, and name what stays there. */
  readonly force?: boolean;
}

export interface DropResult {
  readonly dropped: readonly string[];
  /** What stays on a side that cannot be reached. */
  readonly left: readonly string[];
}

/**
 * Removes slot, publications and the pipeline's rows (with the last pipeline, schema `erserver`). Replicated
 * tables stay. The source comes first: a slot that stays behind would keep WAL until its disk is full, so
 * nothing is removed when a side cannot be reached, unless asked.
 */
export async function dropPipeline(options: DropOptions): Promise<DropResult> {
  let control: ControlSession;
  try {
    control = await connectPrimary(options, "target");
  } catch (error) {
    if (!isAway(error)) throw error;
    if (options.force !== true) throw unreachable(error, slotNameFor(options.target.name));
    return dropWithoutTarget(options);
  }
  try {
    return await dropBoth(options, control);
  } finally {
    await control.end();
  }
}

async function dropBoth(options: DropOptions, control: ControlSession): Promise<DropResult> {
  const { target, force = false } = options;
  const store = new PipelineStore(control, target.name);
  const known = await usableSchemaExists(control, describeConninfo(target.conninfo));
  const registration = known ? await store.registration() : undefined;
  const dropped: string[] = [];
  const left: string[] = [];
  const slot = registration?.slot ?? slotNameFor(target.name);
  try {
    await using source = await connectPrimary(options, "source");
    await refuseServed(control, target.name);
    // Without a registration a slot of our name is somebody else's.
    if (registration !== undefined) {
      requireSameSource(registration, await readSourceFacts(source), target.name);
      dropped.push(...(await dropSourceObjects(source, slot)));
    }
  } catch (error) {
    const changed = error instanceof ErserverError && error.code === "ERS-410";
    if (!changed && !isAway(error)) throw error;
    if (!force) throw changed ? error : unreachable(error, slot);
    if (registration !== undefined) {
      left.push(
        `replication slot ${slot} and its publications on the source that was registered: it keeps WAL until it is dropped`,
      );
    }
  }
  await refuseServed(control, target.name);
  if (registration !== undefined) {
    await store.unregister();
    dropped.push(`target ${target.name} from schema erserver`);
  }
  if (known && (await store.dropSchemaIfUnused())) dropped.push("schema erserver on the target");
  return { dropped, left };
}

/** Nobody can say any more that the slot of our name is ours: whoever forces it does. */
async function dropWithoutTarget(options: DropOptions): Promise<DropResult> {
  await using source = await connectPrimary(options, "source");
  return {
    dropped: await dropSourceObjects(source, slotNameFor(options.target.name)),
    left: ["schema erserver on the target, if it was made there"],
  };
}

/** A server that does not answer, or not as one that we could work with; not one that says that somebody is at work. */
function isAway(error: unknown): error is ErserverError {
  return (
    error instanceof ErserverError &&
    error.entry.retry === "reconnect" &&
    error.code !== "ERS-507" &&
    error.code !== "ERS-508"
  );
}

async function refuseServed(control: ControlSession, name: string): Promise<void> {
  if (!(await isServed(control, name))) return;
  throw new ErserverError("ERS-508", `a replicator serves target ${name}`, {
    subject: name,
    remedy: "Stop erserver run first, then drop.",
  });
}

async function dropSourceObjects(source: ControlSession, slot: string): Promise<string[]> {
  const dropped = (await dropSlot(source, slot)) ? [`replication slot ${slot} on the source`] : [];
  try {
    const names = await dropPublications(source, publicationNames(slot));
    return [...dropped, ...names.map((name) => `publication ${name} on the source`)];
  } catch (error) {
    if (sqlStateOf(error) !== SQLSTATE.insufficientPrivilege) throw error;
    const { all, insertOnly } = publicationNames(slot);
    throw new ErserverError(
      "ERS-304",
      `publication "${all}" cannot be dropped: ${(error as Error).message}`,
      {
        subject: all,
        remedy: `Have its owner run on the source: DROP PUBLICATION IF EXISTS "${all}", "${insertOnly}"; then erserver drop again.`,
        cause: error,
      },
    );
  }
}

function unreachable(error: ErserverError, slot: string): ErserverError {
  return new ErserverError(
    error.code,
    `${error.message}; nothing was removed, because replication slot "${slot}" would stay there and keep WAL`,
    {
      ...(error.subject === undefined ? {} : { subject: error.subject }),
      remedy: `${error.remedy} Or, if that server is gone for good: erserver drop --force.`,
      cause: error,
    },
  );
}
