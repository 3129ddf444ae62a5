import { lockHolderQuery } from "../apply/target-session.ts";
import { type Lsn, maxLsn, parseLsn, ZERO_LSN } from "../change/lsn.ts";
import { describeConninfo } from "../config/conninfo.ts";
import { connectControl, type ControlSession } from "../postgres/connect.ts";
import { readSourceFacts } from "../postgres/server-facts.ts";
import { usableSchemaExists } from "../store/migrate.ts";
import { PipelineStore, type Registration, requireSameSource } from "../store/pipeline-store.ts";
import type { CommandOptions } from "./context.ts";

/** Sessions of a command that looks at a pipeline from outside, whoever serves it. */
export interface Sides extends AsyncDisposable {
  readonly source: ControlSession;
  readonly target: ControlSession;
  readonly store: PipelineStore;
  /** Undefined when the target knows nothing of the pipeline. */
  readonly registration: Registration | undefined;
}

export async function connectSides({ config, target: { name, conninfo } }: CommandOptions): Promise<Sides> {
  const options = { applicationName: `erserver ${name} command`, timeoutMs: config.timeoutMs };
  const target = await connectControl(conninfo, options);
  try {
    const source = await connectControl(config.source, options);
    try {
      const store = new PipelineStore(target, name);
      const known = await usableSchemaExists(target, describeConninfo(conninfo));
      const registration = known ? await store.registration() : undefined;
      if (registration !== undefined) requireSameSource(registration, await readSourceFacts(source), name);
      return {
        source,
        target,
        store,
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

/** True while some replicator holds the pipeline's lock on the target. */
export async function isServed(target: ControlSession, name: string): Promise<boolean> {
  return (await target.query(lockHolderQuery(name))).length > 0;
}

/** How far the target is: by its own record, or by what a running replicator has told the source since. */
export async function reachedLsn({ source, store, registration }: Sides): Promise<Lsn> {
  const recorded = (await store.progress())?.lsn ?? ZERO_LSN;
  const [walsender] = await source.query(
    `select r.replay_lsn from pg_catalog.pg_stat_replication r join pg_catalog.pg_replication_slots s on s.active_pid = r.pid where s.slot_name = $1`,
    [registration?.slot ?? ""],
  );
  return walsender?.["replay_lsn"] == null ? recorded : maxLsn(recorded, parseLsn(walsender["replay_lsn"]));
}
