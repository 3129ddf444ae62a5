import { Readable, Writable } from "node:stream";
import { captureTables, forgetIfRestored } from "../../src/capture/trigger/captured-tables.ts";
import { parseConninfo, type Conninfo } from "../../src/config/conninfo.ts";
import { systemEnvironment } from "../../src/config/environment.ts";
import {
  type AppliedCarrier,
  applyCarrier,
  type ApplyCarrierOptions,
} from "../../src/pipeline/apply-carrier.ts";
import { confirmCarrier } from "../../src/pipeline/confirm-carrier.ts";
import {
  prepareCarrier,
  type PrepareCarrierOptions,
  type PreparedCarrier,
} from "../../src/pipeline/prepare-carrier.ts";
import { tablesToCapture } from "../../src/pipeline/trigger-tables.ts";
import { readTables, tableLabel } from "../../src/postgres/catalog.ts";
import { connectControl } from "../../src/postgres/connect.ts";
import { selectTables } from "../../src/postgres/selection.ts";
import { readSourceFacts } from "../../src/postgres/server-facts.ts";
import { migrate } from "../../src/store/migrate.ts";
import { testLog } from "./pipeline-context.ts";

/** By which the source knows the target. */
const NAME = "pma";

const timeoutMs = 30_000;

const never = new AbortController().signal;

function conninfo(url: string): Conninfo {
  return parseConninfo(url, systemEnvironment());
}

/** Has the changes of these tables recorded because they were asked for; `schema.table`, as SQL writes it. Default all. */
export async function registerTables(sourceUrl: string, labels?: readonly string[]): Promise<void> {
  await using session = await connectControl(conninfo(sourceUrl), {
    applicationName: "erserver test",
    timeoutMs,
  });
  await migrate(session, "source", "source");
  await forgetIfRestored(session);
  const facts = await readSourceFacts(session);
  const tables = (await readTables(session, facts.version)).filter(
    ({ schema, name }) => labels === undefined || labels.includes(tableLabel(schema, name)),
  );
  const include = [{ schema: "*", table: "*", columns: undefined, where: undefined }];
  const rules = { include, exclude: [], publishViaPartitionRoot: true, withoutKey: "refresh" } as const;
  const selection = selectTables(tables, rules, facts.version, "trigger");
  const wanted = await tablesToCapture({ source: session, sourceFacts: facts, selection });
  await captureTables(
    session,
    wanted.map((table) => ({ ...table, registered: true as const })),
  );
}

/** Takes what is written to it. */
export function collector(): { readonly output: Writable; readonly bytes: () => Buffer } {
  const parts: Buffer[] = [];
  const output = new Writable({
    write: (part: Buffer, _encoding, done) => {
      parts.push(part);
      done();
    },
  });
  return { output, bytes: () => Buffer.concat(parts) };
}

type PrepareOptions = Partial<Omit<PrepareCarrierOptions, "source" | "timeoutMs">> & {
  /** Takes the file in place of the result. */
  readonly output?: Writable;
};

export interface CarrierFile extends PreparedCarrier {
  readonly file: Buffer;
}

/** Undefined when nothing has changed. */
export async function prepare(
  sourceUrl: string,
  { output: own, ...options }: PrepareOptions = {},
): Promise<CarrierFile | undefined> {
  const { output, bytes } = collector();
  const prepared = await prepareCarrier(
    { source: conninfo(sourceUrl), name: NAME, timeoutMs, signal: never, ...options },
    own ?? output,
  );
  if (own !== undefined) return prepared && { ...prepared, file: Buffer.alloc(0) };
  if (prepared === undefined) {
    if (bytes().length > 0) throw new Error("something was written though nothing has changed");
    return undefined;
  }
  if (bytes().length !== prepared.bytes) throw new Error("the file is of another size than was said");
  return { ...prepared, file: bytes() };
}

/** As `prepare`, where something must have changed. */
export async function prepareFile(sourceUrl: string, options: PrepareOptions = {}): Promise<CarrierFile> {
  const prepared = await prepare(sourceUrl, options);
  if (prepared === undefined) throw new Error("nothing has changed");
  return prepared;
}

export async function apply(
  targetUrl: string,
  file: Buffer | Readable,
  options: Partial<Omit<ApplyCarrierOptions, "target" | "timeoutMs">> = {},
): Promise<AppliedCarrier> {
  return applyCarrier(
    { target: conninfo(targetUrl), timeoutMs, signal: never, log: testLog(), ...options },
    file instanceof Readable ? file : Readable.from(pieces(file)),
  );
}

export async function confirm(
  sourceUrl: string,
  syncId: number,
  name = NAME,
): Promise<"confirmed" | "already confirmed"> {
  return confirmCarrier({ source: conninfo(sourceUrl), name, timeoutMs, signal: never }, syncId);
}

function* pieces(file: Buffer): Generator<Buffer> {
  for (let at = 0; at < file.length; at += 10_000) yield file.subarray(at, at + 10_000);
}
