import type { CatalogTable } from "../postgres/catalog.ts";
import type { ControlSession } from "../postgres/connect.ts";
import type { Selection } from "../postgres/selection.ts";
import type { ServerFacts, SourceFacts } from "../postgres/server-facts.ts";
import type { SlotName } from "../quote/slot-name.ts";
import type { PipelineStore, Progress, Registration, TableState } from "../store/pipeline-store.ts";
import type { ChangeSource } from "./change-source.ts";
import type { PipelineContext } from "./context.ts";
import type { Problem } from "./limits.ts";

/** What is known of both sides when it is decided what the source needs. */
export interface SourceInput {
  readonly context: PipelineContext;
  readonly source: ControlSession;
  readonly sourceFacts: SourceFacts;
  readonly control: ControlSession;
  readonly targetFacts: ServerFacts;
  readonly store: PipelineStore;
  /** The pipeline's name on the source. */
  readonly slot: SlotName;
  readonly selection: Selection;
  readonly targetTables: ReadonlyMap<string, CatalogTable>;
  /** Undefined before the pipeline was registered on its target. */
  readonly known: Registration | undefined;
  readonly progress: Progress | undefined;
  readonly copied: ReadonlyMap<string, TableState>;
  /** The role on the target may keep triggers and foreign keys from firing. */
  readonly replicaRole: boolean;
}

/** All is checked: `make` changes the source, once the target knows of the pipeline. */
export interface PreparedSource {
  readonly make: () => Promise<{
    readonly changes: ChangeSource;
    readonly made: readonly string[];
    /** What the operator should know. */
    readonly problems: readonly Problem[];
  }>;
}
