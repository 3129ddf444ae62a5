import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import { type ConnectionOptions, createSecureContext, type SecureContextOptions } from "node:tls";
import { type Conninfo, describeConninfo, type Host, isSocket, type TLS_FILES } from "../config/conninfo.ts";
import { ErserverError } from "../errors/erserver-error.ts";
import { SQLSTATE } from "../errors/sqlstate.ts";
import { isTlsFailure, sqlStateOf } from "./failures.ts";

export type SslAttempt = "plain" | "tls";

/** What to try in turn. https://www.postgresql.org/docs/current/libpq-ssl.html */
export function sslAttempts({ sslmode }: Conninfo, host: Host): readonly SslAttempt[] {
  if (isSocket(host)) return ["plain"];
  switch (sslmode) {
    case "disable":
      return ["plain"];
    case "allow":
      return ["plain", "tls"];
    case "prefer":
      return ["tls", "plain"];
    case "require":
    case "verify-ca":
    case "verify-full":
      return ["tls"];
  }
}

/** Whether the other way is worth trying: not when the server is away, nor when it refused the password. */
export function triesNextSsl({ sslmode }: Conninfo, tried: SslAttempt, error: unknown): boolean {
  if (sslmode !== "allow" && sslmode !== "prefer") return false;
  if (sqlStateOf(error) === SQLSTATE.invalidAuthorization) return true;
  return tried === "tls" && isTlsFailure(error) && !/channel binding/.test((error as Error).message);
}

/**
 * Options of `tls.connect` that do what libpq does with these keywords. The files are read anew each time: they may have been
 * renewed. Throws ERS-207 for one that cannot be read or used.
 */
export function tlsOptions(conninfo: Conninfo, host: Host): ConnectionOptions {
  const { sslmode, sslrootcert } = conninfo;
  const verifiesName = sslmode === "verify-full";
  return {
    // libpq: `require` with a root certificate file verifies the chain, for backward compatibility.
    rejectUnauthorized:
      verifiesName || sslmode === "verify-ca" || (sslmode === "require" && sslrootcert !== undefined),
    secureContext: createSecureContext(contextOptions(conninfo)),
    // The name to check, also where we connect to `hostaddr`; as an extension of the handshake it may not be an address.
    host: host.host,
    ...(isIP(host.host) === 0 ? { servername: host.host } : {}),
    ...(verifiesName ? {} : { checkServerIdentity: () => undefined }),
  };
}

function contextOptions(conninfo: Conninfo): SecureContextOptions {
  const passphrase = conninfo.sslpassword?.reveal();
  const cert = readPem(conninfo, "sslcert");
  const key = cert === undefined ? undefined : readPem(conninfo, "sslkey");
  const crl = readPem(conninfo, "sslcrl");
  const ca = conninfo.sslrootcert === "system" ? undefined : readPem(conninfo, "sslrootcert");
  // Node itself takes text without a certificate for an empty list.
  if (ca !== undefined) checkPem(conninfo, "sslrootcert", () => new X509Certificate(ca));
  if (cert !== undefined) checkPem(conninfo, "sslcert", () => createSecureContext({ ca: [], cert }));
  if (crl !== undefined) checkPem(conninfo, "sslcrl", () => createSecureContext({ ca: [], crl }));
  const own = { ...(cert && { cert }), ...(key && { key }), ...(passphrase && { passphrase }) };
  if (key !== undefined) checkPem(conninfo, "sslkey", () => createSecureContext({ ca: [], ...own }));
  return {
    // Without `ca` Node trusts the public CAs: only `system` may ask for that.
    ...(conninfo.sslrootcert === "system" ? {} : { ca: ca ?? [] }),
    ...own,
    ...(crl && { crl }),
    minVersion: conninfo.sslMinProtocolVersion,
    ...(conninfo.sslMaxProtocolVersion && { maxVersion: conninfo.sslMaxProtocolVersion }),
  };
}

type TlsFile = (typeof TLS_FILES)[number];

function readPem(conninfo: Conninfo, keyword: TlsFile): string | undefined {
  const path = conninfo[keyword];
  return path === undefined ? undefined : checkPem(conninfo, keyword, () => readFileSync(path, "utf8"));
}

function checkPem<T>(conninfo: Conninfo, keyword: TlsFile, use: () => T): T {
  try {
    return use();
  } catch (error) {
    const where = describeConninfo(conninfo);
    const reason = error instanceof Error ? error.message : String(error);
    throw new ErserverError(
      "ERS-207",
      `${where}: ${keyword} "${conninfo[keyword]}" cannot be used: ${reason}`,
      {
        subject: where,
        remedy: `Correct the file or ${keyword}${keyword === "sslkey" ? " (and sslcert, sslpassword)" : ""} in the configuration; it reconnects by itself.`,
        cause: error,
      },
    );
  }
}
