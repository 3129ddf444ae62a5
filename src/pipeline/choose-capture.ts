import { describeConninfo } from "../config/conninfo.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import type { CaptureKind } from "../postgres/selection.ts";
import { requireWalLevel, type SourceFacts } from "../postgres/server-facts.ts";
import type { Registration } from "../store/pipeline-store.ts";
import { connectReplication } from "./connect-replication.ts";
import type { PipelineContext } from "./context.ts";
import type { Problem } from "./limits.ts";

/** How changes are had from the source. */
interface Choice {
  readonly capture: CaptureKind;
  /** Why it is not the other one, when nobody has decided. */
  readonly reason?: Problem;
}

/**
 * What a pipeline has begun with it stays with. Else it is as the configuration says, or, with `auto`, the WAL where it can be had.
 * Throws ERS-301 or ERS-302 where it must be the WAL and cannot.
 */
export async function chooseCapture(
  context: PipelineContext,
  facts: SourceFacts,
  known: Pick<Registration, "capture"> | undefined,
): Promise<Choice> {
  const { config, target } = context;
  const wanted = config.capture;
  if (known !== undefined && wanted !== "auto" && wanted !== known.capture)
    throw captureChanged(target.name, known.capture, wanted);
  const decided = known?.capture ?? (wanted === "auto" ? undefined : wanted);
  if (decided === "trigger") return { capture: decided };
  try {
    requireWalLevel(facts, describeConninfo(config.source));
    // A managed host lets roles replicate that the catalogue does not mark so.
    if (!facts.mayReplicate) await (await connectReplication(context)).end();
    return { capture: "wal" };
  } catch (error) {
    if (
      decided === "wal" ||
      !(error instanceof ErserverError) ||
      !["ERS-301", "ERS-302"].includes(error.code)
    )
      throw error;
    const { message, remedy } = error;
    return {
      capture: "trigger",
      reason: {
        code: "ERS-308",
        message: `changes are recorded by triggers, because they cannot be had from the WAL: ${message}`,
        remedy: `Nothing to do. To have them from the WAL: ${remedy}`,
      },
    };
  }
}

function captureChanged(name: string, before: CaptureKind, now: CaptureKind): ErserverError {
  return new ErserverError(
    "ERS-411",
    `target ${name} gets its changes by \`capture: ${before}\`, and the configuration says ${now} now`,
    {
      subject: name,
      remedy: `Undo the change in the configuration. Or start over for this target: erserver drop, empty its tables, erserver run.`,
    },
  );
}
