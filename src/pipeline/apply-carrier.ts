import type { Readable } from "node:stream";
import { Applier, type Applied, ONE_SESSION } from "../apply/applier.ts";
import { type TargetSession, openTargetSession } from "../apply/target-session.ts";
import type { TablePlan } from "../apply/table-plan.ts";
import { type CarrierReceiver, readCarrier } from "../carrier/carrier-reader.ts";
import type { CarrierHeader, CarrierSource } from "../carrier/format.ts";
import type { Group } from "../change/group.ts";
import { type Lsn, ZERO_LSN } from "../change/lsn.ts";
import type { Relation } from "../change/relation.ts";
import { type Conninfo, describeConninfo } from "../config/conninfo.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import type { Logger } from "../observability/log.ts";
import { oneAtATime } from "../postgres/advisory-lock.ts";
import { readTables, tablesByKey } from "../postgres/catalog.ts";
import type { ControlSession } from "../postgres/connect.ts";
import { requirePrivileges } from "../postgres/privileges.ts";
import { readSourceFacts, type SourceFacts } from "../postgres/server-facts.ts";
import { onAbort } from "../runtime/abort.ts";
import { slotNameFor } from "../quote/slot-name.ts";
import { migrate, usableSchemaExists } from "../store/migrate.ts";
import { PipelineStore, type Progress, type Registration } from "../store/pipeline-store.ts";
import { MemoryTransport } from "../transport/memory.ts";
import { checkTargetTables } from "./open-pipeline.ts";
import { refusePaused } from "./pause.ts";
import { connectDatabase } from "./sides.ts";
import { addTableStates, forgetTableStates, requireOwnTables } from "./table-states.ts";

export interface ApplyCarrierOptions {
  readonly target: Conninfo;
  /** Longest silence of the server, in milliseconds. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  readonly log: Logger;
  /** An age identity, `AGE-SECRET-KEY-1…` or the text of its file, for a file that is encrypted. */
  readonly identity?: string | undefined;
  /** Called now and then. */
  readonly onProgress?: ((progress: { readonly rows: number }) => void) | undefined;
}

export interface AppliedCarrier {
  /** The target's name, by which the source knows it. */
  readonly name: string;
  readonly syncId: number;
  /** The file before; undefined for one that brought all rows of all tables. */
  readonly baseSyncId: number | undefined;
  readonly rows: number;
  readonly source: CarrierSource;
}

/** Held in memory, in message bytes. */
const CAPACITY_BYTES = 16 * 1024 * 1024;
const SLICE_BYTES = 4 * 1024 * 1024;

/** A file may come slowly: the target is spoken to so often, in milliseconds, that it does not end the transaction. */
const KEEP_ALIVE_MS = 1_000;

/**
 * Applies a carrier file to the target, in one transaction, which is committed when the file has been read to its end and is as it was
 * written; then it is durable. Whatever it throws, nothing of the file is on the target: ERS-604 to 607 for a file that is none, newer,
 * damaged, or encrypted to somebody else; ERS-608 for one that was applied before; ERS-609 for one that is not the next; ERS-610 for
 * one that is not for this target; ERS-612 when the input fails; ERS-508 while somebody else serves the target; ERS-4xx and 7xx as for
 * any other changes; an AbortError with the signal.
 */
export async function applyCarrier(options: ApplyCarrierOptions, input: Readable): Promise<AppliedCarrier> {
  const { receiver, rows } = await readCarrier(
    input,
    { identity: options.identity, signal: options.signal },
    (header) => Arrival.open(options, header),
  );
  await using arrival = receiver;
  await arrival.commit();
  const { name, sync, base, source } = arrival.header;
  return { name, syncId: sync, baseSyncId: base ?? undefined, rows, source };
}

interface ArrivalParts {
  readonly options: ApplyCarrierOptions;
  readonly header: CarrierHeader;
  readonly control: ControlSession;
  readonly store: PipelineStore;
  readonly session: TargetSession;
  readonly plans: readonly TablePlan[];
  readonly progressLsn: Lsn;
}

/** A file on its way into the target. */
class Arrival implements CarrierReceiver {
  readonly header: CarrierHeader;
  readonly relations: readonly Relation[];
  readonly failed: Promise<never>;
  readonly #parts: ArrivalParts;
  readonly #transport = new MemoryTransport({
    capacityBytes: CAPACITY_BYTES,
    groupTransactions: 1,
    groupBytes: SLICE_BYTES,
  });
  readonly #applier: Applier;
  readonly #applied: Promise<Applied>;
  /** Taken, and begun while the one before it is written. */
  readonly #ahead: Group[] = [];
  readonly #giveUp: Disposable;
  #rows = 0;

  private constructor(parts: ArrivalParts) {
    this.#parts = parts;
    const { options, header, plans, session, progressLsn } = parts;
    this.header = header;
    this.relations = plans.map(({ relation }) => relation);
    const planOf = new Map(plans.map((plan) => [plan.relation, plan]));
    this.#applier = new Applier({
      far: false,
      connection: session.connection,
      pipeline: header.name,
      progressLsn,
      planFor: (relation) => Promise.resolve(planOf.get(relation) as TablePlan),
      copies: { lsnOf: () => ZERO_LSN, newestLsn: ZERO_LSN },
      conflict: "source-wins",
      binary: false,
      // Where foreign keys and triggers fire the order of statements is theirs to judge.
      write: session.replicaRole ? "auto" : "rows",
      snapshotAt: () => header.snapshot,
      parallel: ONE_SESSION,
    });
    void session.connection.closed.then((error) => this.#transport.fail(error));
    // Whatever it waits for.
    this.#giveUp = onAbort(options.signal, () => session.connection.destroy());
    this.#transport.begin(this.#transaction);
    this.#applied = this.#apply();
    this.failed = new Promise((_resolve, reject) => void this.#applied.catch(reject));
    this.failed.catch(() => {});
  }

  /** Checks all that can be checked, and only then changes anything: schema and registration. */
  static async open(options: ApplyCarrierOptions, header: CarrierHeader): Promise<Arrival> {
    const { target, timeoutMs, signal } = options;
    const { name } = header;
    const sessionOptions = { applicationName: `erserver ${name}`, timeoutMs, signal };
    const control = await connectDatabase(target, "target", {
      ...sessionOptions,
      // Whatever the server's default: the rows must not outlive the registration in a crash.
      settings: { synchronous_commit: "local" },
    });
    let session: TargetSession | undefined;
    try {
      const where = describeConninfo(target);
      // Of a target: it may be the source.
      const facts = await readSourceFacts(control);
      refuseSource(facts, header, where);
      session = await openTargetSession({
        conninfo: target,
        pipeline: name,
        version: facts.version,
        ownBackends: new Set(),
        ...sessionOptions,
      });
      // What is reported as applied is then confirmed to the source.
      await session.connection.query("set synchronous_commit = local");
      const store = new PipelineStore(control, name);
      const there = await usableSchemaExists(control, where);
      const registration = there ? await store.registration() : undefined;
      const progress = registration === undefined ? undefined : await store.progress();
      requireNext(header, registration, progress);
      refusePaused(registration, name);
      const plans = await planFor(control, facts, header, options.log);
      await migrate(control, where, "target");
      const progressLsn = progress?.lsn ?? ZERO_LSN;
      await register(store, control, header, progressLsn === ZERO_LSN);
      return new Arrival({ options, header, control, store, session, plans, progressLsn });
    } catch (error) {
      session?.connection.destroy();
      await control.end();
      throw error;
    }
  }

  get sink(): CarrierReceiver["sink"] {
    const transport = this.#transport;
    return {
      change: (change) => transport.change(change),
      get full() {
        return transport.full;
      },
      whenRoom: () => Promise.race([transport.whenRoom(), this.failed]),
    };
  }

  /** The file is whole. */
  async commit(): Promise<void> {
    const { store } = this.#parts;
    this.#transport.commit(this.#transaction);
    const { sourceLsn } = await this.#applied;
    await store.finishTables(sourceLsn);
    await forgetTableStates(store, this.header);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { session, control } = this.#parts;
    this.#giveUp[Symbol.dispose]();
    // What is not committed is rolled back.
    session.connection.destroy();
    await this.#applied.catch(() => {});
    await this.#applier[Symbol.asyncDispose]();
    await control.end();
  }

  get #transaction(): Parameters<MemoryTransport["begin"]>[0] {
    const { sync, preparedAt } = this.header;
    const lsn = BigInt(sync) as Lsn;
    return { xid: 0, commitLsn: lsn, endLsn: lsn, commitTime: preparedAt };
  }

  async #apply(): Promise<Applied> {
    const transport = this.#transport;
    for (;;) {
      const group = this.#ahead.shift();
      const delivery =
        group === undefined ? await transport.take(KEEP_ALIVE_MS) : ({ kind: "group", group } as const);
      if (delivery?.kind === "group") {
        const applied = await this.#applier.apply(delivery.group, (answered) => this.#lookAhead(answered));
        transport.release(delivery.group);
        this.#rows += delivery.group.changes.length;
        this.#parts.options.onProgress?.({ rows: this.#rows });
        if (applied !== undefined) return applied;
      } else if (delivery?.kind === "idle") {
        // What has changed came to nothing.
        return this.#applier.advance(delivery.lsn);
      } else if (transport.midTransaction) await this.#applier.flushedLsn();
    }
  }

  async #lookAhead(answered: Promise<unknown>): Promise<Group | undefined> {
    const group = await this.#transport.takeAhead(answered);
    if (group !== undefined) this.#ahead.push(group);
    return group;
  }
}

/** How each table is written. Throws ERS-304 and 4xx. */
async function planFor(
  control: ControlSession,
  facts: SourceFacts,
  { name, tables }: CarrierHeader,
  log: Logger,
): Promise<TablePlan[]> {
  const targetTables = tablesByKey(await readTables(control, facts.version));
  const plans = checkTargetTables(tables, targetTables, "stop");
  requirePrivileges({ side: "target", role: facts.user, tables: plans.map(({ target }) => target) });
  const rewritten = plans.filter(
    (plan, index) => plan.hasColumnsOfItsOwn && tables[index]?.rewrites === true,
  );
  for (const { label } of rewritten)
    log.warn(
      `${label} has columns of its own on the target, and its changed rows are deleted and inserted: what only the target has of them goes`,
      { pipeline: name, table: label },
    );
  return plans;
}

/** @param fresh nothing of this target is applied: whatever is registered stands for nothing. */
async function register(
  store: PipelineStore,
  control: ControlSession,
  header: CarrierHeader,
  fresh: boolean,
): Promise<void> {
  const { name, carrier, source } = header;
  await oneAtATime(control, async () => {
    requireOwnTables(await store.tablesOfOthers(source), header);
    if (fresh) {
      await store.unregister();
      await store.registerCarrier(source, slotNameFor(name), carrier);
    }
    await addTableStates(store, header);
  });
}

/** A cluster that was made from a copy of another has its identifier: rather one target too few than a source that is overwritten. */
function refuseSource(facts: SourceFacts, { source, name }: CarrierHeader, where: string): void {
  if (facts.systemIdentifier !== source.systemIdentifier || facts.databaseOid !== source.databaseOid) return;
  throw misdirected(name, `${where} is the source that the file is from, or a copy of its cluster`, where);
}

/** Throws ERS-608 to 610 unless the file begins where the target is. One that brings all rows of all its tables begins anywhere. */
function requireNext(
  { name, carrier, source, sync, base, snapshot, baseSnapshot }: CarrierHeader,
  registration: Registration | undefined,
  progress: Progress | undefined,
): void {
  const current = Number(progress?.lsn ?? ZERO_LSN);
  if (registration !== undefined && registration.carrier === undefined)
    throw misdirected(name, `a replicator brings the changes to target ${name} of this database`);
  if (registration !== undefined && current > 0) {
    const { sourceSystem, sourceDatabase } = registration;
    if (sourceSystem !== source.systemIdentifier || sourceDatabase !== source.database)
      throw misdirected(
        name,
        `target ${name} has its rows from database "${sourceDatabase}" of cluster ${sourceSystem}, and the file is from "${source.database}" of cluster ${source.systemIdentifier}`,
      );
    if (registration.carrier !== carrier)
      throw misdirected(name, `the file is for another target that the source calls ${name}`);
    if (sync === current && snapshot !== progress?.snapshot) throw setBack(name, sync);
    if (sync <= current) throw appliedAlready(name, sync, current);
  }
  if (base === null) return;
  if (base !== current) throw outOfOrder(name, sync, base, current);
  if (baseSnapshot !== progress?.snapshot) throw setBack(name, sync);
}

function misdirected(name: string, message: string, subject = name): ErserverError {
  return new ErserverError("ERS-610", message, {
    subject,
    remedy:
      "Take the file to the target that it was prepared for. To fill this one anew under that name, remove what it knows of it first: SlaveDrop, or erserver drop.",
  });
}

function appliedAlready(name: string, sync: number, current: number): ErserverError {
  const where = sync === current ? "" : `: target ${name} is at ${current}`;
  return new ErserverError("ERS-608", `file ${sync} was applied already${where}`, {
    subject: name,
    remedy: `Nothing to do here. Tell the source, if it does not know: MasterSync … ${current}.`,
  });
}

/** The numbers fit, and what they stand for does not. */
function setBack(name: string, sync: number): ErserverError {
  return new ErserverError(
    "ERS-609",
    `file ${sync} does not go on from what target ${name} shows: the source, or the target, was set back to an older state`,
    {
      subject: name,
      remedy: `Start over for this target: have the source forget target ${name}, and this database too; PrepareSnapshot then writes a file with all rows.`,
    },
  );
}

function outOfOrder(name: string, sync: number, base: number, current: number): ErserverError {
  const at = current === 0 ? "has none" : `is at ${current}`;
  // What it has for confirmed was applied to another database.
  const again =
    current === 0
      ? `have the source forget target ${name}; PrepareSnapshot then writes a file with all rows.`
      : `on the source: MasterSync … ${current}, then PrepareSnapshot.`;
  return new ErserverError("ERS-609", `file ${sync} follows file ${base}, and target ${name} ${at}`, {
    subject: name,
    remedy:
      base > current
        ? `Apply file ${base} first. If it is lost, ${again}`
        : `This one cannot be applied any more; ${again}`,
  });
}
