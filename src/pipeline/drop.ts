import { dropCaptureIfUnused, releaseUnwanted } from "../capture/trigger/captured-tables.ts";
import { captureExists, forgetConsumer } from "../capture/trigger/consumers.ts";
import { describeConninfo } from "../config/conninfo.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { SQLSTATE } from "../errors/sqlstate.ts";
import { plural } from "../observability/figures.ts";
import { oneAtATime, tryLock } from "../postgres/advisory-lock.ts";
import type { ControlSession } from "../postgres/connect.ts";
import { sqlStateOf } from "../postgres/failures.ts";
import { dropPublications, publicationNames } from "../postgres/publications.ts";
import type { CaptureKind } from "../postgres/selection.ts";
import { dropSlot, readSlot } from "../postgres/slots.ts";
import { readServerFacts, readSourceFacts } from "../postgres/server-facts.ts";
import { slotNameFor } from "../quote/slot-name.ts";
import { usableSchemaExists } from "../store/migrate.ts";
import { PipelineStore, type Registration, requireSameSource } from "../store/pipeline-store.ts";
import type { CommandOptions } from "./context.ts";
import { connectPrimary } from "./sides.ts";

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
    // Given up by us: it may well be there.
    options.signal?.throwIfAborted();
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
  const { target } = options;
  // Kept until the session ends: nobody begins to serve, or to make anew, what is half gone.
  if (!(await tryLock(control, "apply", target.name))) throw served(target.name);
  const store = new PipelineStore(control, target.name);
  const known = await usableSchemaExists(control, describeConninfo(target.conninfo));
  const registration = known ? await store.registration() : undefined;
  const slot = registration?.slot ?? slotNameFor(target.name);
  await using source = await connectRegistered(options, registration, slot);
  const dropped: string[] = [];
  const left: string[] = [];
  // What the target refuses, or makes us wait for in vain, keeps the source's objects too: they go in between.
  const schemaDropped = await oneAtATime(control, async () => {
    if (registration !== undefined) await store.unregister();
    const unused = known && (await store.dropSchemaIfUnused());
    if (registration !== undefined) {
      if (source !== undefined)
        dropped.push(...(await dropSourceObjects(source, slot, registration.capture)));
      else
        left.push(
          `replication slot ${slot} and its publications on the source that was registered. ${howToDrop(slot)}`,
        );
      dropped.push(`target ${target.name} from schema erserver`);
    } else if (source !== undefined && (await slotExists(source, slot))) {
      // Without a registration a slot of our name is somebody else's.
      left.push(`replication slot ${slot}, of which this target knows nothing. ${howToDrop(slot)}`);
    }
    return unused;
  });
  if (schemaDropped) dropped.push("schema erserver on the target");
  return { dropped, left };
}

/** The source that the target was registered with; undefined when it cannot be had and the drop is forced. */
async function connectRegistered(
  options: DropOptions,
  registration: Registration | undefined,
  slot: string,
): Promise<ControlSession | undefined> {
  let source: ControlSession | undefined;
  try {
    source = await connectPrimary(options, "source");
    if (registration !== undefined)
      requireSameSource(registration, await readSourceFacts(source), options.target.name);
    return source;
  } catch (error) {
    await source?.end();
    // Given up by us: it may well be there.
    options.signal?.throwIfAborted();
    const changed = error instanceof ErserverError && error.code === "ERS-410";
    if (!changed && !isAway(error)) throw error;
    if (options.force !== true) throw changed ? error : unreachable(error, slot);
    return undefined;
  }
}

async function slotExists(source: ControlSession, slot: string): Promise<boolean> {
  return (await readSlot(source, (await readServerFacts(source)).version, slot)) !== undefined;
}

function howToDrop(slot: string): string {
  const { all, insertOnly } = publicationNames(slot);
  return `It keeps WAL until somebody runs there: SELECT pg_drop_replication_slot('${slot}'); DROP PUBLICATION IF EXISTS "${all}", "${insertOnly}";`;
}

/** Nobody can say any more that the slot of our name is ours: whoever forces it does. */
async function dropWithoutTarget(options: DropOptions): Promise<DropResult> {
  await using source = await connectPrimary(options, "source");
  return {
    dropped: [
      ...(await dropSourceObjects(source, slotNameFor(options.target.name), "wal")),
      ...(await dropSourceObjects(source, slotNameFor(options.target.name), "trigger")),
    ],
    left: ["schema erserver on the target, if it was made there"],
  };
}

/** A server that does not answer, or not as one that we could work with. */
function isAway(error: unknown): error is ErserverError {
  return error instanceof ErserverError && error.entry.retry === "reconnect";
}

function served(name: string): ErserverError {
  return new ErserverError("ERS-508", `a replicator serves target ${name}`, {
    subject: name,
    remedy: "Stop erserver run first, then drop.",
  });
}

async function dropSourceObjects(
  source: ControlSession,
  slot: string,
  capture: CaptureKind,
): Promise<string[]> {
  return capture === "wal" ? dropSlotAndPublications(source, slot) : forgetTarget(source, slot);
}

/** With the last target that wants a table, what records its changes goes too, unless that was asked for by itself. */
async function forgetTarget(source: ControlSession, pipeline: string): Promise<string[]> {
  if (!(await captureExists(source))) return [];
  await forgetConsumer(source, pipeline);
  const released = await releaseUnwanted(source);
  const gone = await dropCaptureIfUnused(source);
  return [
    `target ${pipeline} on the source`,
    ...(released === 0 ? [] : [`triggers on ${plural(released, "table")} of the source`]),
    ...(gone === "schema" ? ["schema erserver on the source"] : []),
    ...(gone === "content" ? ["what erserver kept in schema erserver of the source"] : []),
  ];
}

/** Both or nothing: a slot without its publications, or the other way round, would look like an accident. */
async function dropSlotAndPublications(source: ControlSession, slot: string): Promise<string[]> {
  const names = publicationNames(slot);
  try {
    await source.query("begin");
    const publications = await dropPublications(source, names);
    const dropped = (await dropSlot(source, slot)) ? [`replication slot ${slot} on the source`] : [];
    await source.query("commit");
    return [...dropped, ...publications.map((name) => `publication ${name} on the source`)];
  } catch (error) {
    await source.query("rollback").catch(() => {});
    if (sqlStateOf(error) !== SQLSTATE.insufficientPrivilege) throw error;
    throw new ErserverError(
      "ERS-304",
      `publication "${names.all}" cannot be dropped, and nothing was: ${(error as Error).message}`,
      {
        subject: names.all,
        remedy: `Have its owner run on the source: DROP PUBLICATION IF EXISTS "${names.all}", "${names.insertOnly}"; then erserver drop again.`,
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
