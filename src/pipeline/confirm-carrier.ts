import { LogCleaner } from "../capture/trigger/log-cleaner.ts";
import { confirmPrepared, readCarrierConsumer } from "../capture/trigger/prepared-syncs.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { type CarrierSourceOptions, openCarrierSource } from "./carrier-source.ts";

/**
 * Tells the source that the target has applied the file of this number: what is prepared from now on begins there, and what was
 * recorded before is removed. Throws ERS-611 for a number, or a target, of which the source knows nothing.
 */
export async function confirmCarrier(
  options: CarrierSourceOptions,
  syncId: number,
): Promise<"confirmed" | "already confirmed"> {
  await using session = await openCarrierSource(options);
  const { source, consumer } = session;
  const known = await readCarrierConsumer(source, consumer);
  if (known === undefined) throw unknownTarget(options.name);
  const { confirmed, prepared, tables } = known;
  const isNew = confirmed === undefined || syncId > confirmed;
  if (isNew ? !prepared.some(({ sync }) => sync === syncId) : syncId < 1)
    throw unknownSync(
      options.name,
      syncId,
      prepared.map(({ sync }) => sync),
    );
  const moved = isNew && (await confirmPrepared(source, consumer, syncId));
  // Also behind one that was broken off there.
  await new LogCleaner(source).clean(tables, Number.POSITIVE_INFINITY);
  return moved ? "confirmed" : "already confirmed";
}

function unknownTarget(name: string): ErserverError {
  return new ErserverError("ERS-611", `the source knows no target ${name} that files are carried to`, {
    subject: name,
    remedy: "Name it as PrepareSnapshot did; the first PrepareSnapshot for a name makes it known.",
  });
}

function unknownSync(name: string, syncId: number, known: readonly number[]): ErserverError {
  const numbers = known.length === 0 ? "none is" : `known are ${known.join(", ")}`;
  return new ErserverError(
    "ERS-611",
    `the source has prepared no file ${syncId} for target ${name}: ${numbers}`,
    {
      subject: name,
      remedy: "Give the number that GetSyncID shows on the target.",
    },
  );
}
