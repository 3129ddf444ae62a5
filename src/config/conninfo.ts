import { readFile, stat } from "node:fs/promises";
import { isIP } from "node:net";
import { join } from "node:path";
import { ErserverError } from "../errors/erserver-error.ts";
import { CONNINFO_KEYWORDS } from "./conninfo-keywords.ts";
import { checkKeyword, conninfoError, type ConninfoPairs, splitConninfo } from "./conninfo-text.ts";
import { type Environment, errnoOf } from "./environment.ts";
import { findPassword } from "./passfile.ts";
import { Secret } from "./secrets.ts";
import { readService } from "./service-file.ts";

export type SslMode = "disable" | "allow" | "prefer" | "require" | "verify-ca" | "verify-full";
export type TargetSessionAttrs =
  | "any"
  | "read-write"
  | "read-only"
  | "primary"
  | "standby"
  | "prefer-standby";
export type TlsVersion = "TLSv1" | "TLSv1.1" | "TLSv1.2" | "TLSv1.3";

export interface Host {
  /** Host name, address, or the folder of a Unix socket (starts with `/` or, for an abstract one, `@`). */
  readonly host: string;
  readonly port: number;
  /** Address to connect to without asking the resolver; `host` is still the name that TLS and .pgpass see. */
  readonly hostaddr?: string;
}

/** A connection string, understood: every field as libpq would use it after service file, PG* variables and defaults. */
export interface Conninfo {
  /** To be tried in order; at least one. */
  readonly hosts: readonly Host[];
  readonly user: string;
  readonly database: string;
  /** Undefined when none is given: see `passwordFor`. */
  readonly password: Secret | undefined;
  /** Where `passwordFor` looks passwords up. */
  readonly passfile: string;
  /**
   * As in libpq: `require` with an `sslrootcert` verifies like `verify-ca`; the verify modes never come without an `sslrootcert`,
   * unless all hosts are sockets.
   */
  readonly sslmode: SslMode;
  readonly sslnegotiation: "postgres" | "direct";
  /** Path of the root certificates, or `system` for the ones that the runtime trusts. Undefined: none, not even the default file. */
  readonly sslrootcert: string | undefined;
  readonly sslcrl: string | undefined;
  readonly sslcert: string | undefined;
  readonly sslkey: string | undefined;
  readonly sslpassword: Secret | undefined;
  readonly sslMinProtocolVersion: TlsVersion;
  readonly sslMaxProtocolVersion: TlsVersion | undefined;
  readonly channelBinding: "disable" | "prefer" | "require";
  readonly targetSessionAttrs: TargetSessionAttrs;
  /** Seconds for each host; undefined is without limit. */
  readonly connectTimeout: number | undefined;
  /** Command-line options for the server, such as `-c search_path=x`. */
  readonly options: string | undefined;
}

/** A Unix socket, which never uses TLS. */
export function isSocket({ host, hostaddr }: Host): boolean {
  return hostaddr === undefined && /^[/@]/.test(host);
}

/** `replicator@ny.example:5432/booktown`: how messages name a database. Never holds a secret. */
export function describeConninfo({ hosts, user, database }: Conninfo): string {
  const places = hosts.map(({ host, port }) => `${host.includes(":") ? `[${host}]` : host}:${port}`);
  return `${user}@${places.join(",")}/${database}`;
}

interface Setting {
  readonly value: string;
  /** What a message blames for a wrong value. */
  readonly origin: string;
}

type Settings = ReadonlyMap<string, Setting>;

const SSL_MODES = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] as const;
const STRONG_SSL_MODES: ReadonlySet<SslMode> = new Set(["require", "verify-ca", "verify-full"]);
const SESSION_ATTRS = ["any", "read-write", "read-only", "primary", "standby", "prefer-standby"] as const;
/** Below the home folder. */
const ROOT_CERTIFICATE = ".postgresql/root.crt";
const TLS_VERSIONS = ["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"] as const;

/**
 * Understands a connection as libpq does: a URL, a keyword=value string, or a mapping with libpq's keywords. What it leaves open
 * comes from the service file, then from the PG* variables, then from libpq's defaults.
 *
 * Throws ERS-104 for anything that libpq would refuse, ERS-105 for a service that is not defined and a certificate or key that
 * cannot be read, ERS-107 for a protection that is not supported. No message holds a value other than a file's or service's name.
 */
export function parseConninfo(
  value: string | Readonly<Record<string, unknown>>,
  environment: Environment,
): Conninfo {
  const settings = collectSettings(
    typeof value === "string" ? splitConninfo(value) : mappingPairs(value),
    environment,
  );
  refuseUnsupported(settings);
  const text = (keyword: string) => settings.get(keyword)?.value || undefined;
  const home = (file: string) => join(environment.home, file);
  const present = (file: string) => (environment.exists(file) ? file : undefined);

  const user = text("user") ?? environment.user;
  if (user === "")
    throw conninfoError("a connection string names no user, and the operating system user has no name");
  const sslrootcert = text("sslrootcert") ?? present(home(ROOT_CERTIFICATE));
  const withCertificate = text("sslcertmode") !== "disable";
  const conninfo: Conninfo = {
    hosts: hostsOf(settings, environment),
    user,
    database: text("dbname") ?? user,
    password: secretOf(text("password")),
    passfile: text("passfile") ?? home(".pgpass"),
    sslmode: sslModeOf(settings, sslrootcert),
    sslnegotiation: oneOf(settings, "sslnegotiation", ["postgres", "direct"], "postgres"),
    sslrootcert,
    sslcrl: text("sslcrl") ?? present(home(".postgresql/root.crl")),
    sslcert: withCertificate ? (text("sslcert") ?? present(home(".postgresql/postgresql.crt"))) : undefined,
    sslkey: withCertificate ? (text("sslkey") ?? present(home(".postgresql/postgresql.key"))) : undefined,
    sslpassword: secretOf(text("sslpassword")),
    sslMinProtocolVersion: oneOf(settings, "ssl_min_protocol_version", TLS_VERSIONS, "TLSv1.2"),
    sslMaxProtocolVersion: oneOf(settings, "ssl_max_protocol_version", TLS_VERSIONS, undefined),
    channelBinding: oneOf(settings, "channel_binding", ["disable", "prefer", "require"], "prefer"),
    targetSessionAttrs: oneOf(settings, "target_session_attrs", SESSION_ATTRS, "any"),
    connectTimeout: connectTimeoutOf(settings),
    options: text("options"),
  };
  checkTls(conninfo, environment);
  return conninfo;
}

/** Files of TLS, each by its keyword. */
export const TLS_FILES = ["sslrootcert", "sslcrl", "sslcert", "sslkey"] as const;

/** libpq goes on without some of the files that are named and absent, and so without the protection that somebody asked for. */
function checkTls(conninfo: Conninfo, environment: Environment): void {
  const { sslmode, sslnegotiation, sslrootcert, sslMinProtocolVersion, sslMaxProtocolVersion } = conninfo;
  if (sslnegotiation === "direct" && !STRONG_SSL_MODES.has(sslmode)) {
    throw conninfoError(
      "sslnegotiation=direct needs an sslmode that insists on TLS, as in libpq",
      "Set sslmode=verify-full, verify-ca or require.",
    );
  }
  if (sslMaxProtocolVersion !== undefined && sslMaxProtocolVersion < sslMinProtocolVersion) {
    throw conninfoError(
      "ssl_max_protocol_version is older than ssl_min_protocol_version",
      "Correct one of the two.",
    );
  }
  if (sslmode === "disable" || conninfo.hosts.every(isSocket)) return;
  if (sslrootcert === undefined && (sslmode === "verify-ca" || sslmode === "verify-full")) {
    throw conninfoError(
      `sslmode=${sslmode} needs a root certificate, and there is none`,
      `Name the file with the CA's certificate by sslrootcert, or copy it to ${join(environment.home, ROOT_CERTIFICATE)}, or set sslrootcert=system (with verify-full) to trust the public CAs.`,
    );
  }
  for (const keyword of TLS_FILES) {
    const path = conninfo[keyword];
    if (path === undefined || (keyword === "sslrootcert" && path === "system")) continue;
    try {
      environment.readFile(path);
    } catch (error) {
      throw new ErserverError("ERS-105", `${keyword} names "${path}", which ${unreadable(error)}`, {
        subject: path,
        remedy: `Correct ${keyword}, or make the file readable for the user that runs erserver.`,
        cause: error,
      });
    }
  }
}

function unreadable(error: unknown): string {
  const code = errnoOf(error);
  return code === "ENOENT" ? "does not exist" : `cannot be read (${code})`;
}

function secretOf(text: string | undefined): Secret | undefined {
  return text === undefined ? undefined : new Secret(text);
}

function mappingPairs(mapping: Readonly<Record<string, unknown>>): ConninfoPairs {
  return Object.entries(mapping).map(([keyword, value], index) => {
    checkKeyword(keyword, index + 1);
    if (typeof value === "string") return [keyword, value];
    // A number only where it can mean nothing but itself: YAML would read the password 007 as 7.
    if (
      typeof value === "number" &&
      (keyword === "port" || /^(?:connect_timeout|keepalives|tcp_user)/.test(keyword))
    ) {
      return [keyword, String(value)];
    }
    throw conninfoError(`"${keyword}" of a connection must be text`, "Put the value in quotes.");
  });
}

/** Explicit settings, completed from the service and then from the environment. An empty value counts as given. */
function collectSettings(explicit: ConninfoPairs, environment: Environment): Settings {
  const { env } = environment;
  const settings = new Map<string, Setting>();
  for (const [keyword, value] of explicit)
    settings.set(keyword, { value, origin: `"${keyword}" of a connection` });

  const service = settings.get("service")?.value ?? env.PGSERVICE ?? "";
  if (service !== "") {
    for (const [keyword, value] of readService(service, settings.get("servicefile")?.value, environment)) {
      if (!settings.has(keyword))
        settings.set(keyword, { value, origin: `"${keyword}" of service "${service}"` });
    }
  }
  for (const [keyword, { env: variable }] of Object.entries(CONNINFO_KEYWORDS)) {
    const value = variable === undefined ? undefined : env[variable];
    if (value !== undefined && !settings.has(keyword))
      settings.set(keyword, { value, origin: `the variable ${variable}` });
  }
  return settings;
}

function refuseUnsupported(settings: Settings): void {
  for (const [keyword, { value, origin }] of settings) {
    const { treatment, harmless = [] } = CONNINFO_KEYWORDS[keyword] ?? {};
    if (treatment !== "refused" || value === "" || harmless.includes(value)) continue;
    throw new ErserverError("ERS-107", `${origin} asks for something that erserver does not support`, {
      subject: keyword,
      remedy:
        harmless.length === 0
          ? `Leave ${keyword} out.`
          : `Leave ${keyword} out, or use ${harmless.join(" or ")}.`,
    });
  }
}

/** Lists of hosts and ports run in parallel; one port serves all hosts. As pqConnectOptions2() in fe-connect.c. */
function hostsOf(settings: Settings, environment: Environment): Host[] {
  const list = (keyword: string) => {
    const value = settings.get(keyword)?.value ?? "";
    return value === "" ? [] : value.split(",");
  };
  const [hosts, addresses, ports] = [list("host"), list("hostaddr"), list("port")];
  const count = Math.max(hosts.length, addresses.length, 1);
  if (addresses.length > 0 && hosts.length > 0 && hosts.length !== addresses.length) {
    throw conninfoError('"host" and "hostaddr" do not list the same number of hosts');
  }
  if (ports.length > 1 && ports.length !== count)
    throw conninfoError('"port" does not list as many ports as there are hosts');
  if (addresses.some((address) => address !== "" && isIP(address) === 0)) {
    throw conninfoError(
      `${settings.get("hostaddr")?.origin} is not an IP address`,
      "Put a name into host; hostaddr saves looking it up.",
    );
  }
  return Array.from({ length: count }, (_, index) => {
    const hostaddr = addresses[index] || undefined;
    const host = hosts[index] || hostaddr || defaultHost(environment);
    const port = parsePort((ports.length === 1 ? ports[0] : ports[index]) || "5432", settings.get("port"));
    return { host, port, ...(hostaddr === undefined ? {} : { hostaddr }) };
  });
}

/** The socket folder that libpq was built with: Debian's and Red Hat's where there is one, otherwise PostgreSQL's own. */
function defaultHost(environment: Environment): string {
  return environment.exists("/var/run/postgresql") ? "/var/run/postgresql" : "/tmp";
}

function parsePort(text: string, setting: Setting | undefined): number {
  const port = /^\s*\d{1,5}\s*$/.test(text) ? Number(text) : 0;
  if (port < 1 || port > 65535) throw conninfoError(`${setting?.origin} is not a number from 1 to 65535`);
  return port;
}

function oneOf<T extends string, D extends T | undefined>(
  settings: Settings,
  keyword: string,
  choices: readonly T[],
  fallback: D,
): T | D {
  const setting = settings.get(keyword);
  if (setting === undefined || setting.value === "") return fallback;
  const choice = choices.find((candidate) => candidate === setting.value);
  if (choice === undefined) throw conninfoError(`${setting.origin} must be one of ${choices.join(", ")}`);
  return choice;
}

function sslModeOf(settings: Settings, sslrootcert: string | undefined): SslMode {
  const system = sslrootcert === "system";
  const mode = oneOf(settings, "sslmode", SSL_MODES, system ? "verify-full" : "prefer");
  // Anybody can have a certificate that the system trusts: only the name in it tells who it is.
  if (system && mode !== "verify-full") {
    throw conninfoError(
      "sslrootcert=system needs sslmode=verify-full, as in libpq",
      "Set sslmode=verify-full.",
    );
  }
  return mode;
}

function connectTimeoutOf(settings: Settings): number | undefined {
  const setting = settings.get("connect_timeout");
  if (setting === undefined || setting.value === "") return undefined;
  if (!/^\s*[+-]?\d{1,9}\s*$/.test(setting.value))
    throw conninfoError(`${setting.origin} is not a whole number of seconds`);
  const seconds = Number(setting.value);
  return seconds > 0 ? seconds : undefined;
}

/**
 * The password for one of the hosts: the explicit one, else the password file's. Like libpq it does not use a password file that
 * others may read, and says so through `warn`.
 */
export async function passwordFor(
  conninfo: Conninfo,
  host: Pick<Host, "host" | "port">,
  warn: (message: string) => void = () => {},
): Promise<Secret | undefined> {
  const { password, passfile, database, user } = conninfo;
  if (password !== undefined) return password;
  const file = await stat(passfile).catch(() => undefined);
  if (file === undefined) return undefined;
  if (!file.isFile()) {
    warn(`password file "${passfile}" is not a plain file`);
    return undefined;
  }
  if (process.platform !== "win32" && (file.mode & 0o077) !== 0) {
    warn(`password file "${passfile}" is not used: others may read it; run: chmod 0600 ${passfile}`);
    return undefined;
  }
  const text = await readFile(passfile, "utf8").catch(() => "");
  const found = findPassword(text, { host: host.host, port: host.port, database, user });
  return found === undefined || found === "" ? undefined : new Secret(found);
}
