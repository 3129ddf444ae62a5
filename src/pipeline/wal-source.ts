import { type Gear, WalCapture } from "../capture/wal/wal-capture.ts";
import { formatLsn, type Lsn } from "../change/lsn.ts";
import { describeConninfo } from "../config/conninfo.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import {
  changePublications,
  planPublications,
  publicationFingerprint,
  publicationNames,
} from "../postgres/publications.ts";
import type { SourceFacts } from "../postgres/server-facts.ts";
import {
  abandonSlot,
  createSlot,
  createTemporarySlot,
  dropSlot,
  type ExportedSnapshot,
  readSlot,
  requireFreeSlot,
  type Slot,
  slotLost,
  slotMissing,
  slotTaken,
} from "../postgres/slots.ts";
import { connectWatched } from "../postgres/watchdog.ts";
import { onAbort } from "../runtime/abort.ts";
import type { Progress } from "../store/pipeline-store.ts";
import type { WireConnection } from "../wire/connection.ts";
import type { Capture, CaptureStart, ChangeSource, HeldSnapshot } from "./change-source.ts";
import { connectReplication } from "./connect-replication.ts";
import { sessionOptions } from "./context.ts";
import type { PreparedSource, SourceInput } from "./source-input.ts";
import { publishedFor, requireSameTables } from "./table-states.ts";

/** A slot and publications: changes come out of the WAL. Throws what keeps it from that. */
export async function prepareWal(input: SourceInput): Promise<PreparedSource> {
  const { context, source, sourceFacts, slot, selection, known, progress, copied } = input;
  const { config } = context;
  const names = publicationNames(slot);
  const planning = planPublications(source, {
    names,
    published: selection.published,
    publishViaPartitionRoot: config.tables.publishViaPartitionRoot,
    sourceVersion: sourceFacts.version,
    ours: known !== undefined,
    followed: progress === undefined ? undefined : publishedFor(copied, selection),
  });
  // What is wrong with the slot is told first.
  planning.catch(() => {});
  const existing = await readSlot(source, sourceFacts.version, slot);
  if (known === undefined && existing !== undefined)
    throw slotTaken(
      slot,
      `it exists already (plugin ${existing.plugin}, database ${existing.database}) and this target knows nothing of it`,
    );
  if (progress !== undefined) checkSlot(existing, slot, sourceFacts, progress.lsn);
  else if (existing === undefined) await requireFreeSlot(source, slot);
  requireSameTables(copied, selection);
  const publishing = await planning;
  return {
    make: async () => {
      await changePublications(source, publishing);
      return {
        changes: new WalSource(input, await publicationFingerprint(source, names)),
        made: publishing.map(({ name }) => `publication ${name} on the source`),
        problems: [],
      };
    },
  };
}

class WalSource implements ChangeSource {
  readonly kind = "wal";
  readonly #input: SourceInput;
  /** As the publications were left: see `publicationFingerprint`. */
  readonly #published: string;

  constructor(input: SourceInput, published: string) {
    this.#input = input;
    this.#published = published;
  }

  /** The first time it is that of the slot, later that of a temporary one. */
  async takeSnapshot(progress: Progress | undefined): Promise<HeldSnapshot> {
    const { source, slot, store } = this.#input;
    if (progress !== undefined) return this.#takeAnother();
    // The registration says that a slot of this name is ours; without progress it is one whose creation was not recorded.
    await dropSlot(source, slot);
    return this.#hold(async (holder) => {
      const snapshot = await createSlot(holder, slot, { temporary: false });
      await store.startProgress(snapshot.consistentPoint);
      return snapshot;
    });
  }

  async #takeAnother(): Promise<HeldSnapshot> {
    const { slot } = this.#input;
    try {
      return await this.#hold((holder) => createTemporarySlot(holder, slot, "copy"));
    } catch (error) {
      if (!(error instanceof ErserverError) || error.code !== "ERS-303") throw error;
      // It worked before: perhaps the source has not noticed yet that our last session, with its slot, is dead.
      throw new ErserverError("ERS-206", error.message, {
        subject: slot,
        remedy: error.remedy,
        cause: error,
      });
    }
  }

  /** `create` waits for every transaction that runs on the source: for as long as anybody likes, but not longer than we do. */
  async #hold(create: (holder: WireConnection) => Promise<ExportedSnapshot>): Promise<HeldSnapshot> {
    const { context, source } = this.#input;
    const holder = await connectReplication(context);
    using _giveUp = onAbort(context.signal, () => void abandonSlot(source, holder));
    try {
      return { snapshot: await create(holder), holder };
    } catch (error) {
      holder.destroy();
      throw error;
    }
  }

  async start({ progress, newestCopyLsn, sink, binary, onGear }: CaptureStart): Promise<Capture> {
    const { context, source, sourceFacts, slot } = this.#input;
    const { config, log } = context;
    const { source: ownBackends } = context.ownBackends;
    // The source may not have noticed that our last connection is dead, and the slot is taken until it has.
    if (ownBackends.size > 0)
      await source.query(
        "select pg_catalog.pg_terminate_backend(active_pid) from pg_catalog.pg_replication_slots where slot_name = $1 and active_pid = any ($2::int[])",
        [slot, [...ownBackends]],
      );
    let newest: WireConnection | undefined;
    const own = async (connecting: Promise<WireConnection>): Promise<WireConnection> => {
      newest = await connecting;
      ownBackends.add(newest.backendPid);
      return newest;
    };
    const gearChanged = (gear: Gear): void => {
      if (gear === "stream" && newest !== undefined) {
        // Whatever an earlier session of ours still held, the slot is free of it.
        ownBackends.clear();
        ownBackends.add(newest.backendPid);
      }
      onGear();
    };
    const names = publicationNames(slot);
    return WalCapture.start({
      connect: {
        stream: () => own(connectReplication(context)),
        bulk: () => own(connectWatched(config.source, sessionOptions(context))),
      },
      control: source,
      version: sourceFacts.version,
      subject: describeConninfo(config.source),
      slot,
      publications: [names.all, names.insertOnly],
      startLsn: progress.lsn,
      binary,
      sink,
      timeoutMs: config.timeoutMs,
      // What waits for its time would keep a bite's snapshot.
      gear: config.apply.delayMs > 0 ? "stream" : config.gear,
      streamingFromLsn: () => (this.#mayStream() ? newestCopyLsn : undefined),
      onGear: gearChanged,
      onRefused: (reason) => log.info(`the bulk gear cannot be used: ${reason.message}`),
    });
  }

  /**
   * Whether large transactions may be written while they are in progress. Not where the target's triggers fire, which may lock what is
   * not theirs; nor where a transaction has to be of some age, which begins with its commit.
   */
  #mayStream(): boolean {
    const { context, sourceFacts, replicaRole } = this.#input;
    const { config, streaming } = context;
    return (
      config.streaming &&
      sourceFacts.version >= 140_000 &&
      replicaRole &&
      config.apply.delayMs === 0 &&
      performance.now() > streaming.refusedUntilMs
    );
  }

  /** What a publication leaves out nobody hears of: opening the pipeline anew says what has changed, or copies what joined. */
  async requireUnchanged(): Promise<void> {
    const { source, slot } = this.#input;
    const names = publicationNames(slot);
    if ((await publicationFingerprint(source, names)) === this.#published) return;
    throw new ErserverError("ERS-509", `publication "${names.all}" was changed by somebody else`, {
      subject: names.all,
      remedy: "Nothing to do: the pipeline is opened anew by itself, and says what is missing.",
    });
  }
}

/** Whether the slot can still give everything behind the target's position. */
function checkSlot(slot: Slot | undefined, name: string, source: SourceFacts, progressLsn: Lsn): void {
  if (slot === undefined) throw slotMissing(name);
  if (slot.plugin !== "pgoutput" || slot.database !== source.database) {
    throw slotTaken(name, `it uses plugin ${slot.plugin} in database ${slot.database}`);
  }
  if (slot.walStatus === "lost") throw slotLost(name);
  if (slot.confirmedFlushLsn !== undefined && slot.confirmedFlushLsn > progressLsn) {
    throw new ErserverError(
      "ERS-504",
      `replication slot "${name}" is at ${formatLsn(slot.confirmedFlushLsn)}, the target at ${formatLsn(progressLsn)}: the changes between cannot be had any more (was the slot made anew, or the target restored from a backup?)`,
      { subject: name, remedy: "Start over for this target: erserver drop, empty its tables, erserver run." },
    );
  }
}
