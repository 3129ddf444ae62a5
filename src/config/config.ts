import type { LogLevel } from "../observability/log.ts";
import type { Conninfo } from "./conninfo.ts";

/**
 * Which tables: names as in the catalogue. In `schema` and `table` a `*` stands for any characters; a `*` or `\` that belongs
 * to a name is written `\*` or `\\`.
 */
export interface TableSelector {
  readonly schema: string;
  readonly table: string;
  /** Column list, names as in the catalogue; undefined is all. Only with an exact name. */
  readonly columns: readonly string[] | undefined;
  /** Row filter, an SQL expression over the table's columns. Only with an exact name. */
  readonly where: string | undefined;
}

export interface TargetConfig {
  /** The pipeline's name. */
  readonly name: string;
  readonly conninfo: Conninfo;
}

/** A configuration file, checked, with every default filled in. */
export interface Config {
  /** Path of the file, as it was given. */
  readonly path: string;
  readonly source: Conninfo;
  /** At least one, names distinct, in the order of the file. */
  readonly targets: readonly TargetConfig[];
  readonly tables: {
    readonly include: readonly TableSelector[];
    readonly exclude: readonly TableSelector[];
    readonly publishViaPartitionRoot: boolean;
    /** What to do about a table without a key where triggers record changes. */
    readonly withoutKey: "stop" | "refresh";
    /** They are those that `MasterAddTable` has registered, and no longer than that. */
    readonly registeredOnly: boolean;
    /** What to do about a replicated column that the target table does not have. */
    readonly missingColumn: "stop" | "ignore";
  };
  readonly capture: "auto" | "wal" | "trigger";
  /** With trigger capture, how much the source may keep for a target that stays away, and what is done about more. */
  readonly captureLog: {
    /** Recorded changes; undefined is any number. */
    readonly rows: number | undefined;
    readonly bytes: number;
    readonly ageMs: number;
    /** `forget`: the target has to be filled again. */
    readonly exceeded: "warn" | "forget";
  };
  /** How the WAL is read: `auto` is `bulk` while far behind. */
  readonly gear: "auto" | "stream" | "bulk";
  /** Large transactions are written while they are in progress on the source. */
  readonly streaming: boolean;
  /** Longest silence of a server, in milliseconds, before its connection counts as lost. */
  readonly timeoutMs: number;
  readonly apply: {
    readonly conflict: "source-wins" | "stop";
    readonly write: "auto" | "rows" | "sets";
    /** `transaction`: each source transaction is a target transaction; `group`: several may become one. */
    readonly mode: "group" | "transaction";
    /** Sessions on the target that write groups at the same time. */
    readonly workers: number | "auto";
    /** To the target: whether its answers take long. */
    readonly distance: "auto" | "near" | "far";
    /** Upper bounds of a group of transactions that become one target transaction; how long it may gather, in milliseconds. */
    readonly group: { readonly transactions: number; readonly bytes: number; readonly delayMs: number };
    /** A transaction is applied when it is so old, in milliseconds. */
    readonly delayMs: number;
  };
  /** Tables copied at the same time. */
  readonly copyJobs: number;
  readonly binary: "auto" | "on" | "off";
  readonly logLevel: LogLevel;
}
