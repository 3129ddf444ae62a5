import type { ErrorCode } from "../errors/codes.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { ServerError } from "../errors/server-error.ts";
import { SQLSTATE } from "../errors/sqlstate.ts";
import { quoteIdent } from "../quote/ident.ts";

/** SQLSTATE of a server's answer, whichever driver path it came by; undefined for anything else. */
export function sqlStateOf(error: unknown): string | undefined {
  if (error instanceof ServerError) return error.code;
  if (error instanceof Error && "severity" in error && "code" in error) return String(error.code);
  return undefined;
}

/** Classes 40 (rollback), 53 (resources), 57 (operator intervention), 58 (system), 08 (connection), and a lock or time that was not to be had. */
export function isPassing(state: string): boolean {
  return (
    /^(?:40|53|57|58|08)/.test(state) ||
    state === SQLSTATE.lockNotAvailable ||
    state === SQLSTATE.idleInTransactionSessionTimeout
  );
}

/** A statement that failed for a reason that can go away by itself. `subject` is the server, `where` or what it was about. */
export function passingFailure(error: Error, state: string, subject?: string): ErserverError {
  return new ErserverError(
    "ERS-705",
    `${subject === undefined ? "" : `${subject}: `}${error.message} (SQLSTATE ${state})`,
    {
      ...(subject === undefined ? {} : { subject }),
      remedy: state.startsWith("53")
        ? "Free disk space or memory there; it goes on by itself."
        : "Nothing to do: it is tried again by itself.",
      cause: error,
    },
  );
}

interface Cause {
  readonly code: ErrorCode;
  readonly what: string;
  readonly remedy: string;
}

const UNREACHABLE = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "EHOSTDOWN",
  "ETIMEDOUT",
  "ENOENT",
  "EACCES",
]);
const BROKEN = new Set([
  "ECONNRESET",
  "EPIPE",
  "ECONNABORTED",
  "ERR_STREAM_DESTROYED",
  "ERR_STREAM_WRITE_AFTER_END",
]);

/**
 * Tells failures of a connection apart: network, authentication, missing database, busy server, and what can go away by
 * itself. `where` is `role@host:port/database`. Returns undefined for what somebody has to act on.
 */
export function connectFailure(error: unknown, where: string): ErserverError | undefined {
  if (error instanceof ErserverError) return error;
  const cause = causeOf(error, where);
  const state = sqlStateOf(error);
  if (cause === undefined) {
    return state !== undefined && isPassing(state) ? passingFailure(error as Error, state, where) : undefined;
  }
  return new ErserverError(cause.code, `${where}: ${cause.what}`, {
    subject: where,
    remedy: cause.remedy,
    cause: error,
  });
}

function causeOf(error: unknown, where: string): Cause | undefined {
  const state = sqlStateOf(error);
  if (state !== undefined) return causeOfState(state, (error as Error).message, where);
  if (!(error instanceof Error)) return undefined;
  const nodeCode = firstNodeCode(error);
  const message = error.message;
  if (nodeCode !== undefined && UNREACHABLE.has(nodeCode)) {
    return {
      code: "ERS-201",
      what: `no answer (${nodeCode})`,
      remedy:
        nodeCode === "ENOTFOUND" || nodeCode === "EAI_AGAIN"
          ? "Check the host name and the name service."
          : "Start the server (pg_ctl start, systemctl start postgresql) or check host, port, listen_addresses and the firewall.",
    };
  }
  if (isTlsFailure(error)) return { code: "ERS-207", what: message, remedy: tlsRemedy(nodeCode, message) };
  if (nodeCode !== undefined && BROKEN.has(nodeCode)) return lost(nodeCode);
  if (/timeout/i.test(message)) {
    return {
      code: "ERS-201",
      what: `no answer in time (${message})`,
      remedy: "Check that the server runs and that the network lets us through.",
    };
  }
  if (
    /Connection terminated|connection closed|Client has encountered a connection error|not queryable/i.test(
      message,
    )
  )
    return lost(message);
  if (/client password must be/.test(message))
    return wrongPassword("the server asks for a password, and there is none for it");
  if (/SASL|password must be a string/i.test(message)) return wrongPassword(message);
  if (message.startsWith("no host is ")) {
    return {
      code: "ERS-206",
      what: message,
      remedy: "Check target_session_attrs and which of the hosts is the primary.",
    };
  }
  return undefined;
}

/** Whether a connection failed for what TLS is about, and not because the server is away or has refused us. */
export function isTlsFailure(error: unknown): boolean {
  if (!(error instanceof Error) || error instanceof ErserverError || sqlStateOf(error) !== undefined)
    return false;
  const nodeCode = firstNodeCode(error) ?? "";
  if (UNREACHABLE.has(nodeCode)) return false;
  return (
    /SSL|certificate|TLS|self.signed|altname|channel binding/i.test(error.message) ||
    /^ERR_(SSL|TLS|OSSL)|CERT|CRL|^UNABLE_TO|^PATH_LENGTH/.test(nodeCode)
  );
}

function tlsRemedy(nodeCode: string | undefined, message: string): string {
  if (message.startsWith("channel binding is required"))
    return "Let the role log in by scram-sha-256 over TLS there (a hostssl line in pg_hba.conf), or take channel_binding=require out of the configuration.";
  if (message.startsWith("SASL channel binding"))
    return "Give the server a certificate that is signed with SHA-256, or set channel_binding=disable in the configuration.";
  if (message.includes("does not support SSL"))
    return "Turn ssl on on the server, or choose an sslmode that does without.";
  if (message.includes("before secure TLS connection was established"))
    return "Check that the server speaks TLS at this port; sslnegotiation=direct needs PostgreSQL 17 or newer.";
  if (nodeCode === "ERR_TLS_CERT_ALTNAME_INVALID")
    return "Connect by a name that the certificate has (host, with hostaddr for the address), or give the server a certificate for this one.";
  if (/^(DEPTH_ZERO_)?SELF_SIGNED|^UNABLE_TO_(GET_ISSUER|VERIFY)/.test(nodeCode ?? ""))
    return "Set sslrootcert in the configuration to the file with the certificate of the CA that signed the server's, and check that it is the right server.";
  return "Check sslmode, sslrootcert, sslcert and sslcrl in the configuration, and ssl on the server.";
}

/** A refused connection to a name with several addresses is an AggregateError that holds the codes. */
function firstNodeCode(error: Error): string | undefined {
  if ("code" in error && typeof error.code === "string") return error.code;
  if (error instanceof AggregateError) {
    const first: unknown = error.errors[0];
    if (first instanceof Error) return firstNodeCode(first);
  }
  return undefined;
}

function lost(what: string): Cause {
  return {
    code: "ERS-204",
    what: `connection lost (${what})`,
    remedy: "Nothing to do: it reconnects by itself and goes on where it was.",
  };
}

function wrongPassword(what: string): Cause {
  return {
    code: "ERS-202",
    what,
    remedy:
      "Check the role, and its password in .pgpass, PGPASSWORD, ${env:…} or ${file:…}; a running erserver goes on by itself once the server and it agree.",
  };
}

function causeOfState(state: string, message: string, where: string): Cause | undefined {
  switch (state) {
    case SQLSTATE.invalidPassword:
      return wrongPassword(message);
    case SQLSTATE.invalidAuthorization:
      if (!/pg_hba\.conf/.test(message)) return wrongPassword(message);
      return {
        code: "ERS-205",
        what: message,
        remedy: `Add a line to the server's pg_hba.conf and reload it: ${hbaLine(message, where)}`,
      };
    case SQLSTATE.invalidCatalogName:
      return {
        code: "ERS-203",
        what: message,
        remedy: "Create the database (createdb) or correct its name.",
      };
    case SQLSTATE.cannotConnectNow:
    case SQLSTATE.tooManyConnections:
      return {
        code: "ERS-206",
        what: message,
        remedy: message.includes("max_wal_senders")
          ? "Raise max_wal_senders there and restart the server, or end WAL senders that nobody needs (pg_stat_replication); it reconnects by itself."
          : "Nothing to do if the server is starting; else raise max_connections or end idle sessions.",
      };
    case SQLSTATE.adminShutdown:
    case SQLSTATE.crashShutdown:
    case SQLSTATE.idleSessionTimeout:
    case SQLSTATE.idleInTransactionSessionTimeout:
    case SQLSTATE.connectionException:
    case SQLSTATE.connectionFailure:
      return lost(message);
    default:
      return undefined;
  }
}

/** 42501 before the first query of an ordinary session: the role may not connect to the database. */
export function connectDenied(
  error: unknown,
  where: string,
  { database, user }: { readonly database: string; readonly user: string },
): unknown {
  if (sqlStateOf(error) !== SQLSTATE.insufficientPrivilege) return error;
  return new ErserverError("ERS-205", `${where}: ${(error as Error).message}`, {
    subject: where,
    remedy: `Run there as the owner of the database: GRANT CONNECT ON DATABASE ${quoteIdent(database)} TO ${quoteIdent(user)};`,
    cause: error,
  });
}

/** The exact line: one database, one role, one address. */
function hbaLine(message: string, where: string): string {
  const address = /host "([^"]+)"/.exec(message)?.[1];
  const replication = /replication connection/.test(message);
  const [role = "", rest = ""] = where.split("@");
  const database = replication ? "replication" : rest.slice(rest.lastIndexOf("/") + 1);
  if (address === undefined || address === "[local]") return `local ${database} ${role} scram-sha-256`;
  return `host ${database} ${role} ${address}/${address.includes(":") ? 128 : 32} scram-sha-256`;
}
