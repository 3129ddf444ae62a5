/**
 * Every error an operator can meet. Codes are stable: scripts may test for them, pages may link to them.
 * `docs/reference/errors.md` is generated from this table.
 *
 * `retry` is decided here and nowhere else:
 * - `reconnect`: the cause can go away by itself; the pipeline is `offline` and tries again for ever, with backoff.
 * - `stop`: somebody has to act; the pipeline is `stopped` until it is started again.
 */
export interface ErrorCodeEntry {
  readonly name: string;
  readonly retry: "reconnect" | "stop";
  /** Exit code of a command that ends with this error. */
  readonly exit: number;
  /** What it means, for the reference. */
  readonly meaning: string;
}

const config = (name: string, meaning: string): ErrorCodeEntry => ({ name, retry: "stop", exit: 2, meaning });
const network = (name: string, meaning: string): ErrorCodeEntry => ({
  name,
  retry: "reconnect",
  exit: 3,
  meaning,
});
const setup = (name: string, meaning: string): ErrorCodeEntry => ({ name, retry: "stop", exit: 4, meaning });
const stream = (name: string, meaning: string): ErrorCodeEntry => ({ name, retry: "stop", exit: 5, meaning });

export const ERROR_CODES = {
  "ERS-101": config("config-not-found", "The configuration file does not exist or cannot be read."),
  "ERS-102": config("config-syntax", "The configuration file is not valid YAML."),
  "ERS-103": config(
    "config-invalid",
    "The configuration file has an unknown key, a missing key or a wrong value.",
  ),
  "ERS-104": config("conninfo-invalid", "A connection string cannot be understood."),
  "ERS-105": config(
    "reference-unresolved",
    "An ${env:…} or ${file:…} reference, a service, or a keyword for a certificate or key names something that is not there.",
  ),
  "ERS-106": config("usage", "A command was called with an unknown option or a wrong argument."),
  "ERS-107": config(
    "not-supported",
    "The configuration asks for something that this version or this server cannot do.",
  ),

  "ERS-201": network(
    "unreachable",
    "A server does not answer: it is down, the address is wrong, or the network is cut.",
  ),
  "ERS-202": network("authentication", "A server refuses the role or its password."),
  "ERS-203": network("database-missing", "A server has no database of this name."),
  "ERS-204": network("connection-lost", "A connection broke, or stayed silent for longer than the timeout."),
  "ERS-205": network(
    "not-allowed",
    "A server's pg_hba.conf has no line that lets us in, or the role may not connect to the database.",
  ),
  "ERS-206": network(
    "server-unavailable",
    "A server is starting up, shutting down, recovering, or has no free connection.",
  ),
  "ERS-207": network("tls", "A TLS connection cannot be made with this sslmode and these certificates."),

  "ERS-301": setup("wal-level", "The source's wal_level is not logical."),
  "ERS-302": setup("no-replication-privilege", "The role may not start replication on the source."),
  "ERS-303": setup("no-free-slot", "The source has no free replication slot or WAL sender."),
  "ERS-304": setup("privilege-missing", "The role lacks a privilege that is needed."),
  "ERS-305": setup("version-unsupported", "The server's version is older than what is supported."),
  "ERS-306": setup("no-tables", "No source table matches the configuration."),
  "ERS-307": {
    ...setup("is-standby", "A server is a standby, or a primary that is not promoted yet."),
    retry: "reconnect",
  },
  "ERS-308": setup(
    "limited",
    "A server's version or a role's privileges make replication do less, or otherwise; it runs all the same.",
  ),
  "ERS-309": setup(
    "role-absent",
    "A role that owns objects of the source, or is granted something on them, does not exist on the target.",
  ),

  "ERS-401": setup("table-absent", "A replicated table does not exist on the target."),
  "ERS-402": setup("column-absent", "A replicated column does not exist on the target table."),
  "ERS-403": setup("type-mismatch", "A column has different types on the two sides."),
  "ERS-404": setup("target-not-empty", "A target table has rows before its first copy."),
  "ERS-405": setup(
    "adopt-differs",
    "--adopt was asked for and a target table's content differs from the source's.",
  ),
  "ERS-406": setup(
    "column-required",
    "A target column that the source does not have is NOT NULL and has no default.",
  ),
  "ERS-407": setup(
    "not-initialized",
    "The target holds no state of this pipeline; or a database was not made a master, or a slave, before tables of it are named.",
  ),
  "ERS-408": setup("schema-newer", "The target's schema erserver was made by a newer version."),
  "ERS-409": setup(
    "identity-absent",
    "The columns that identify a source row are not all on the target table.",
  ),
  "ERS-410": setup("source-changed", "The source is not the database that this target was copied from."),
  "ERS-411": setup(
    "selection-changed",
    "The columns or the row filter of a table were changed in the configuration after the table was copied.",
  ),
  "ERS-412": setup("table-shared", "Another pipeline from the same source fills the same target tables."),

  "ERS-413": setup(
    "registration-differs",
    "A table is registered otherwise on the master than on the slave, or there alone.",
  ),
  "ERS-414": setup("still-wanted", "What is to be removed is needed by targets that others have set up."),

  "ERS-501": stream("slot-taken", "A replication slot of our name exists and was not made by this pipeline."),
  "ERS-502": stream("slot-missing", "The pipeline's replication slot does not exist any more."),
  "ERS-503": stream("slot-lost", "The source has removed WAL that the slot still needed."),
  "ERS-504": stream(
    "slot-ahead",
    "The slot is ahead of what the target has applied: changes in between cannot be had from it.",
  ),
  "ERS-505": stream(
    "publication-missing",
    "The pipeline's publication does not exist any more or was changed, or a copied table is not the one of that name any more.",
  ),
  "ERS-506": stream(
    "publication-taken",
    "A publication of our name exists and publishes something else, and may not be altered.",
  ),
  "ERS-507": { ...stream("slot-active", "The slot is in use by another process."), retry: "reconnect" },
  "ERS-508": { ...stream("target-busy", "Another replicator serves this target."), retry: "reconnect" },
  "ERS-509": {
    ...stream(
      "source-reshaped",
      "A table has changed in a way that the pipeline has to be opened anew for; that happens by itself.",
    ),
    retry: "reconnect",
  },
  "ERS-510": {
    ...stream(
      "must-commit-first",
      "A large transaction of the source cannot be written while it is in progress; the pipeline is opened anew by itself and waits for its commit.",
    ),
    retry: "reconnect",
  },

  "ERS-511": stream(
    "log-budget",
    "The source keeps more changes for a target that stays away than `capture_log` allows.",
  ),

  "ERS-601": stream("malformed-message", "The source sent bytes that are not a valid message."),
  "ERS-602": stream(
    "protocol-violation",
    "A server answered with something that the protocol does not allow here.",
  ),
  "ERS-603": stream("unknown-relation", "A change refers to a table that the stream has not described."),
  "ERS-604": stream("not-a-carrier", "The input is not a carrier file."),
  "ERS-605": stream(
    "carrier-newer",
    "A carrier file was made by a newer version, in a format that this one does not know.",
  ),
  "ERS-606": stream("carrier-damaged", "A carrier file was cut short or altered on its way."),
  "ERS-607": stream(
    "carrier-key",
    "A carrier file is encrypted and the identity to decrypt it by is missing or another one, or a recipient or identity is not an age key.",
  ),
  "ERS-608": stream(
    "carrier-applied",
    "A carrier file was applied before; the target has all that is in it.",
  ),
  "ERS-609": stream(
    "carrier-out-of-order",
    "A carrier file does not begin where the target is: another has to be applied before it.",
  ),
  "ERS-610": stream(
    "carrier-misdirected",
    "A carrier file is for another target or from another source than the one here, or carrier files and a replicator were to serve one target.",
  ),
  "ERS-611": stream(
    "carrier-unknown",
    "The source has prepared no carrier file of this number for this target.",
  ),
  "ERS-612": stream("carrier-io", "A carrier file cannot be written or read."),

  "ERS-701": stream("apply-refused", "The target refuses a change, or either side the copy of a table."),
  "ERS-702": stream(
    "row-missing",
    "A row to update is missing on the target and cannot be made whole from the change.",
  ),
  "ERS-703": stream("conflict", "A change conflicts with a row on the target, and the policy is to stop."),
  "ERS-704": stream("no-identity", "A change has no row identity to find the target's row by."),
  "ERS-705": {
    ...stream(
      "passing",
      "A server broke off a statement for a passing reason, such as a deadlock, a full disk or a cancel; it is tried again.",
    ),
    retry: "reconnect",
  },
  "ERS-706": stream("fenced", "The position on the target was moved by somebody else."),

  "ERS-801": { ...stream("different", "Tables differ between source and target."), exit: 1 },
  "ERS-802": stream(
    "verify-timeout",
    "The target did not reach the position to compare at in time, or a table was changed before it could be compared.",
  ),

  "ERS-803": stream("paused", "The target is paused: nothing is applied until erserver resume."),

  "ERS-901": stream("internal", "A bug in erserver."),
  "ERS-902": { ...stream("interrupted", "Stopped by a signal before the work was done."), exit: 130 },
  "ERS-903": setup("no-server-binaries", "No PostgreSQL server binaries were found for the demo."),
  "ERS-904": setup(
    "server-start-failed",
    "An embedded PostgreSQL server of the demo could not be started or stopped.",
  ),
} as const satisfies Record<string, ErrorCodeEntry>;

export type ErrorCode = keyof typeof ERROR_CODES;
