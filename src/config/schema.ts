import { z } from "zod";
import type { TableSelector } from "./config.ts";
import { isExact, parseName, parseTablePattern } from "./table-pattern.ts";
import { DURATION, parseDuration, parseSize, SIZE } from "./units.ts";

export const TARGET_NAME = /^[A-Za-z0-9_-]{1,40}$/;

const DAY = 86_400_000;
const GB = 2 ** 30;

const CONNINFO =
  "a `postgres://` URL, a `keyword=value` string, or a mapping with libpq's keywords. Several hosts, `service=`, PG* variables, `.pgpass` and `sslmode` work as in psql. The value of a `${env:NAME}` or `${file:PATH}` inside may hold any character: it is escaped.";

const conninfo = z
  .union([z.string(), z.record(z.string(), z.union([z.string(), z.number()]))])
  .describe(`A database: ${CONNINFO}`);

/** Turns the RangeError of a parser into an issue at the value. */
function parsed<T>(parse: (text: string) => T) {
  return (text: string, context: z.RefinementCtx<string>): T => {
    try {
      return parse(text);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      context.addIssue({ code: "custom", message: `${JSON.stringify(text)} ${error.message}` });
      return z.NEVER;
    }
  };
}

const pattern = z.string().transform(parsed(parseTablePattern));
const columnName = z.string().transform(parsed(parseName));

const selector = z
  .union([
    pattern.transform((names): TableSelector => ({ ...names, columns: undefined, where: undefined })),
    z
      .strictObject({
        table: pattern.describe("One table, without `*`."),
        columns: z
          .array(columnName)
          .min(1, "names no column: leave `columns` out to replicate all")
          .refine((names) => new Set(names).size === names.length, "names a column twice")
          .optional()
          .describe("Columns to replicate; must include the row identity. Default: all."),
        where: z
          .string()
          .regex(/\S/, "is empty")
          .optional()
          .describe("Row filter: an SQL expression over the table's columns, evaluated by the source."),
      })
      .refine(({ table }) => isExact(table), {
        path: ["table"],
        message: "columns and where need one table, without *",
      })
      .transform(({ table, columns, where }): TableSelector => ({ ...table, columns, where })),
  ])
  .describe(
    'Tables, as `schema.table`; `*` stands for any characters. Names fold to lower case unless quoted, as in psql\'s patterns: `public.*`, `sales."Order Lines"`. The schema is never left out.',
  );

const duration = (least: number, most: number) =>
  z
    .string('must be a duration with its unit, such as "30s"')
    .regex(DURATION, "must be a duration with its unit: ms, s, m or h")
    .transform(parseDuration)
    .refine(
      (milliseconds) => milliseconds >= least && milliseconds <= most,
      `must be from ${least / 1000} s to ${most / 1000} s`,
    );

const size = (least: number, most: number) =>
  z
    .string('must be a size with its unit, such as "4MB"')
    .regex(SIZE, "must be a size with its unit: B, kB, MB or GB")
    .transform(parseSize)
    .refine((bytes) => bytes >= least && bytes <= most, `must be from ${least / 1024} kB to ${most / GB} GB`);

/** The configuration file. Every key has its description here: the reference and the editors' schema are made from it. */
export const configSchema = z
  .strictObject({
    source: conninfo.describe(`The database to copy from: ${CONNINFO}`),
    targets: z
      .record(z.string().regex(TARGET_NAME, "must be 1 to 40 letters, digits, _ or -"), conninfo)
      .refine((targets) => Object.keys(targets).length > 0, "must name at least one target")
      .describe(
        "The databases to copy to, by name. The name (letters, digits, `_` and `-`, at most 40) becomes the pipeline's.",
      ),
    tables: z
      .strictObject({
        include: z
          .array(selector)
          .min(1, "selects no table: leave `include` out to replicate all")
          .default([{ schema: "*", table: "*", columns: undefined, where: undefined }])
          .describe(
            "Tables to replicate. Default: every ordinary and partitioned table outside the system's schemas.",
          ),
        exclude: z
          .array(pattern)
          .default([])
          .describe("Tables to leave out of what `include` selects; patterns as there."),
        publish_via_partition_root: z
          .boolean()
          .default(true)
          .describe(
            "Replicate partitioned tables as one table, so that the target may be partitioned otherwise or not at all.",
          ),
        without_key: z
          .enum(["stop", "refresh"])
          .default("stop")
          .describe(
            "With `capture: trigger`, a table without a key: `stop` and name it, or `refresh`: replace the whole table on the target, in the same transaction as all else, whenever anything of it has changed. For small tables.",
          ),
        missing_column: z
          .enum(["stop", "ignore"])
          .default("stop")
          .describe(
            "When the target table lacks a replicated column: `stop` the pipeline, or `ignore` the column.",
          ),
      })
      .prefault({})
      .describe("What is replicated."),
    capture: z
      .enum(["auto", "wal", "trigger"])
      .default("auto")
      .describe(
        "How changes are had from the source: `wal` by logical decoding; `trigger` by triggers that record which rows change, which needs no setting, no replication privilege and no restart. `auto`: `wal` where it can be had. A target stays with what it has begun with.",
      ),
    capture_log: z
      .strictObject({
        bytes: size(1024 * 1024, 4096 * GB)
          .prefault("10GB")
          .describe("Size of the records of the target's tables. Units as in PostgreSQL: `kB`, `MB`, `GB`."),
        rows: z.int().min(1).optional().describe("Number of recorded changes. Default: any."),
        age: duration(60_000, 365 * DAY)
          .prefault("168h")
          .describe("Time since the source last heard of a target that misses something."),
        exceeded: z
          .enum(["warn", "forget"])
          .default("warn")
          .describe(
            "Beyond that: `warn` in log and status, or `forget` the target, which then has to be filled again.",
          ),
      })
      .prefault({})
      .describe("With trigger capture: how much the source may keep for a target that stays away."),
    gear: z
      .enum(["auto", "stream", "bulk"])
      .default("auto")
      .describe(
        "How the WAL is read: by a `stream`, or in `bulk`, which costs the source less for each row and holds a snapshot there for seconds at a time. `auto`: in bulk while more than 64 MB behind (PostgreSQL 12 and newer).",
      ),
    streaming: z
      .enum(["on", "off"])
      .default("on")
      .describe(
        "Large transactions are read, and written to the target in a session of their own, while they are in progress on the source (PostgreSQL 14 and newer); they are committed and seen in the source's order all the same. `off`: when they have committed.",
      ),
    timeout: duration(1_000, DAY)
      .prefault("30s")
      .describe(
        "A server that is silent for this long counts as lost, and the pipeline reconnects. Units: `ms`, `s`, `m`, `h`.",
      ),
    apply: z
      .strictObject({
        conflict: z
          .enum(["source-wins", "stop"])
          .default("source-wins")
          .describe(
            "When a target row is not as the source's change expects it: make it the source's row and record the conflict, or stop.",
          ),
        write: z
          .enum(["auto", "rows", "sets"])
          .default("auto")
          .describe(
            "`rows`: a statement for each change, in the source's order. `sets`: the net changes of a group, with a statement for many rows. `auto`: whichever suits the group.",
          ),
        mode: z
          .enum(["group", "transaction"])
          .default("group")
          .describe(
            "`group`: several source transactions may become one target transaction. `transaction`: each is one of its own, for triggers on the target that depend on it; slower.",
          ),
        workers: z
          .union([z.literal("auto"), z.int().min(1).max(16)])
          .default("auto")
          .describe(
            "Sessions on the target that write groups at the same time while catching up, where the groups touch no row in common; they are committed in the source's order. `auto`: 4 where the target is far or there are more than two processors, else 1.",
          ),
        distance: z
          .enum(["auto", "near", "far"])
          .default("auto")
          .describe(
            "How far the target is. `far`: its answers take long, so groups follow each other without waiting for them, which costs it a little more work. `near`: they are waited for. `auto`: far where a round trip takes more than a millisecond.",
          ),
        delay: duration(0, 30 * DAY)
          .prefault("0s")
          .describe(
            "Keep the target so far behind: a transaction is applied when its commit is that long ago. The source keeps the WAL meanwhile. Units as in `timeout`.",
          ),
        group: z
          .strictObject({
            transactions: z
              .int()
              .min(1)
              .max(1_000_000)
              .default(10_000)
              .describe("Most transactions in a group."),
            bytes: size(64 * 1024, GB)
              .prefault("4MB")
              .describe("Most bytes of changes in a group. Units as in PostgreSQL: `kB`, `MB`, `GB`."),
            delay: duration(0, 60_000)
              .prefault("0s")
              .describe(
                "How long a group may gather before it is written; 0 writes what there is. Units as in `timeout`.",
              ),
          })
          .prefault({})
          .describe(
            "Bounds of the source transactions that become one target transaction while catching up.",
          ),
      })
      .prefault({})
      .describe("How changes are written."),
    copy: z
      .strictObject({ jobs: z.int().min(1).max(64).default(4).describe("Tables copied at the same time.") })
      .prefault({})
      .describe("The first copy."),
    binary: z
      .enum(["auto", "on", "off"])
      .default("auto")
      .describe("Move values in PostgreSQL's binary form: `auto` where every column's type allows it."),
    log: z
      .strictObject({
        level: z
          .enum(["debug", "info", "warn", "error"])
          .default("info")
          .describe("Least important lines that are written."),
      })
      .prefault({})
      .describe("The log, on standard error."),
  })
  .describe("Configuration of erserver.");

export type ConfigFile = z.output<typeof configSchema>;
