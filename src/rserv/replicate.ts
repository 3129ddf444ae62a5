import { createHash } from "node:crypto";
import { readRegisteredTables, type RegisteredTable } from "../capture/trigger/captured-tables.ts";
import { continues, forgetConsumer, readConsumer } from "../capture/trigger/consumers.ts";
import type { Lsn } from "../change/lsn.ts";
import type { Config, TargetConfig } from "../config/config.ts";
import { describeConninfo } from "../config/conninfo.ts";
import { defaultConfig } from "../config/load.ts";
import { exactTable } from "../config/table-pattern.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import type { Logger } from "../observability/log.ts";
import { Pipeline, type PipelineStatus } from "../pipeline/pipeline.ts";
import { syncTarget } from "../pipeline/sync.ts";
import { inOneDatabase, tryLock } from "../postgres/advisory-lock.ts";
import { tableKey, tableLabel, tableLabels } from "../postgres/catalog.ts";
import type { ControlSession } from "../postgres/connect.ts";
import { readSourceFacts, type SourceFacts } from "../postgres/server-facts.ts";
import { slotNameFor } from "../quote/slot-name.ts";
import { isOf, PipelineStore } from "../store/pipeline-store.ts";
import { type Database, inDatabase, requireMaster, requireSlave } from "./database.ts";
import { compareRegistrations, type Registration } from "./registration.ts";
import { readSlaveTables } from "./slave.ts";

export interface ReplicateOptions {
  readonly master: Database;
  readonly slave: Database;
  /** The slave's name among the master's slaves; undefined is the one that it has, or one made of its database. */
  readonly name?: string | undefined;
  /** Only these tables, as somebody calls them; empty is all. What happens to the others comes when they are asked for again. */
  readonly tables: readonly string[];
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** What is to be replicated, when both sides were looked at and agree. */
export interface Replication {
  readonly config: Config;
  readonly target: TargetConfig;
  readonly only: ReadonlySet<string> | undefined;
  /** What is registered on both sides. */
  readonly tables: readonly Registration[];
  /** What the master has registered and this slave has not. */
  readonly masterOnly: readonly Registration[];
}

/** Compares what both sides have registered; what the master has not recorded for the slave all the time is to be compared and made equal again. */
export async function prepareReplication(options: ReplicateOptions): Promise<Replication> {
  const { master, slave, log } = options;
  return inDatabase(master, "source", async (source) => {
    return inDatabase(slave, "target", async (target) => {
      if (await inOneDatabase(source, target)) throw oneDatabase(master);
      await requireMaster(source, master);
      await requireSlave(target, slave);
      const registered = (await readRegisteredTables(source)).filter(({ dropped }) => !dropped);
      const { both, masterOnly } = compareRegistrations(registered, await readSlaveTables(target));
      if (both.length === 0) throw nothingRegistered(master, slave);
      const only = chosen(both, options.tables);
      const facts = await readSourceFacts(source);
      const name = options.name ?? (await knownName(target, facts)) ?? (await newName(target));
      await forgetUnrecorded({ source, facts, target, name, registered });
      const named = { name, conninfo: slave.conninfo };
      const defaults = defaultConfig("Replicate", master.conninfo, named);
      const config: Config = {
        ...defaults,
        capture: "trigger",
        timeoutMs: master.timeoutMs,
        tables: {
          ...defaults.tables,
          include: both.map(exactTable),
          // Whoever registers a table without a key has decided.
          withoutKey: "refresh",
          registeredOnly: true,
        },
      };
      log.debug(`slave ${name}`, { tables: both.length });
      return { config, target: named, only, tables: both, masterOnly };
    });
  });
}

/** The tables that were asked for, by `tableKey`; undefined is all. */
function chosen(both: readonly Registration[], names: readonly string[]): Set<string> | undefined {
  if (names.length === 0) return undefined;
  return new Set(
    names.map((text) => {
      const found = both.filter(({ schema, name }) => [name, tableLabel(schema, name)].includes(text));
      const [one] = found;
      if (one !== undefined && found.length === 1) return tableKey(one.schema, one.name);
      throw new ErserverError(
        "ERS-401",
        found.length === 0
          ? `${JSON.stringify(text)} is not registered on both sides`
          : `${JSON.stringify(text)} may be any of ${tableLabels(found)}`,
        { subject: text, remedy: `Registered are: ${tableLabels(both)}.` },
      );
    }),
  );
}

/** As which the slave has been replicated from this master. */
async function knownName(
  target: ControlSession,
  { systemIdentifier, database }: SourceFacts,
): Promise<string | undefined> {
  const rows = await target.query<{ name: string }>(
    "select name from erserver.pipeline where registered_only and source_system = $1 and source_database = $2",
    [systemIdentifier, database],
  );
  return rows[0]?.name;
}

/**
 * After MasterDrop, or MasterRemoveTable, and another registration nobody knows what has changed in between, nor when one side was set
 * back to an older state: the tables count as not copied, so that the next sync makes them equal. A slave that somebody serves is left
 * alone, and so is a target of `erserver` or of carrier files that has the name.
 */
async function forgetUnrecorded({
  source,
  facts,
  target,
  name,
  registered,
}: {
  readonly source: ControlSession;
  readonly facts: SourceFacts;
  readonly target: ControlSession;
  readonly name: string;
  readonly registered: readonly RegisteredTable[];
}): Promise<void> {
  const store = new PipelineStore(target, name);
  // Kept until the session ends: nobody begins meanwhile.
  if (!(await tryLock(target, "apply", name))) return;
  const known = await store.registration();
  if (known?.registeredOnly !== true || known.carrier !== undefined) return;
  const shown = (await store.progress())?.snapshot;
  const consumer = await readConsumer(source, slotNameFor(name));
  if (consumer === undefined) await store.unregister();
  else if (!isOf(known, facts)) return;
  else if (shown !== undefined && !continues(consumer, shown)) {
    // In this order: whoever is stopped in between does the rest the next time.
    await forgetConsumer(source, slotNameFor(name));
    await store.unregister();
  } else await store.forgetTables(registered.filter(({ id }) => !consumer.tables.includes(id)));
}

/** Of the database and what tells it from its namesakes elsewhere. */
async function newName(target: ControlSession): Promise<string> {
  const { systemIdentifier, database } = await readSourceFacts(target);
  const plain = database.replaceAll(/[^A-Za-z0-9_-]/g, "_").slice(0, 30);
  const hash = createHash("sha256").update(`${systemIdentifier}/${database}`).digest("hex").slice(0, 6);
  return `${plain}-${hash}`;
}

export interface Replicated {
  /** Number of the last sync that the slave has. */
  readonly syncId: Lsn;
  readonly rows: number;
  /** Tables were copied, or compared and made equal. */
  readonly copied: boolean;
  /** Another replicator did it. */
  readonly waitedForOther: boolean;
  /** Something was brought to the slave. */
  readonly changed: boolean;
}

/** One sync: the slave has what had committed on the master when it began. */
export async function replicateOnce(
  { config, target, only }: Replication,
  { slave, log, signal }: ReplicateOptions,
  onStatus: (status: PipelineStatus) => void,
): Promise<Replicated> {
  const result = await syncTarget({ config, target, log, signal, only, occupied: "reconcile", onStatus });
  const syncId = await inDatabase(slave, "target", async (session) => {
    const progress = await new PipelineStore(session, target.name).progress();
    return progress?.lsn ?? (0n as Lsn);
  });
  const { rows, copied, waitedForOther, transactions } = result;
  return { syncId, rows, copied, waitedForOther, changed: transactions > 0 || copied };
}

/** Until the signal. Rejects with what somebody has to mend; a side that is away is waited for. */
export async function replicateContinuously(
  { config, target, only }: Replication,
  { log, signal }: ReplicateOptions,
  onStatus: (status: PipelineStatus) => void,
): Promise<void> {
  await new Pipeline({ config, target, log, only, occupied: "reconcile", onStatus }).run(signal);
}

function oneDatabase({ conninfo }: Database): ErserverError {
  const where = describeConninfo(conninfo);
  return new ErserverError("ERS-103", `master and slave are one database: ${where}`, {
    subject: where,
    remedy:
      "Correct host, port or database of one of them: --masterhost, --slavehost, --masterport, --slaveport.",
  });
}

function nothingRegistered(master: Database, slave: Database): ErserverError {
  return new ErserverError(
    "ERS-306",
    `no table is registered on both ${describeConninfo(master.conninfo)} and ${describeConninfo(slave.conninfo)}`,
    {
      remedy: `Run: MasterAddTable ${master.conninfo.database} TABLE [COLUMN]; SlaveAddTable ${slave.conninfo.database} TABLE [COLUMN]`,
    },
  );
}
