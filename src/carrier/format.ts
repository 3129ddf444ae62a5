import type { ReplicatedTable } from "../postgres/selection.ts";

/** docs/carrier-format.md describes the file. */
export const FORMAT_VERSION = 1;

/** How every version's file begins; then come the number of the format, and a newline. */
export const MAGIC = "erserver carrier ";

/** SHA-256 of all before it, at the end of the file. */
export const DIGEST_BYTES = 32;

/** Type bytes of the records. */
export const RECORD = {
  header: 0x48, // H
  truncate: 0x54, // T
  deleteAll: 0x52, // R
  insert: 0x49, // I
  update: 0x55, // U
  delete: 0x44, // D
  end: 0x45, // E
} as const;

/** What the file is, for whom, and what the tables of its records are like. */
export interface CarrierHeader {
  /** Version of the erserver that made it. */
  readonly erserver: string;
  readonly source: CarrierSource;
  /** The target's name, by which the source knows it. */
  readonly name: string;
  /** A UUID that the source has given this target: names are given twice. */
  readonly carrier: string;
  /** The number of this file: greater than that of each one before. */
  readonly sync: number;
  /** The file that has to be applied before; null when this one brings all rows of all its tables. */
  readonly base: number | null;
  /** Of type txid_snapshot on the source: what the target shows with this file, and without it. */
  readonly snapshot: string;
  readonly baseSnapshot: string | null;
  /** Microseconds since 1970 by the source's clock. */
  readonly preparedAt: number;
  /** How values are written. */
  readonly encoding: "UTF8";
  /** All tables of the target, changed or not; records name them by their index. */
  readonly tables: readonly CarriedTable[];
}

export interface CarrierSource {
  /** pg_control's system_identifier. */
  readonly systemIdentifier: string;
  readonly database: string;
  readonly databaseOid: number;
  /** As server_version shows it. */
  readonly version: string;
}

export interface CarriedTable extends ReplicatedTable {
  /** Its changed rows come as deleted and inserted: see FollowedTable. */
  readonly rewrites: boolean;
}
