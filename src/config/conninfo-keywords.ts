interface Keyword {
  /** Environment variable that gives its default. */
  readonly env?: string;
  /**
   * `used`: part of `Conninfo`. `ignored`: tunes something that erserver decides itself. `refused`: asks for a protection that we
   * cannot give, so going on without it would be a lie; the values listed in `harmless` ask for nothing.
   */
  readonly treatment: "used" | "ignored" | "refused";
  readonly harmless?: readonly string[];
}

/**
 * Every keyword that libpq knows, up to PostgreSQL 18 (PQconninfoOptions in fe-connect.c).
 * https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
 */
export const CONNINFO_KEYWORDS: Readonly<Record<string, Keyword>> = {
  service: { treatment: "used" },
  servicefile: { treatment: "used" },
  host: { env: "PGHOST", treatment: "used" },
  hostaddr: { env: "PGHOSTADDR", treatment: "used" },
  port: { env: "PGPORT", treatment: "used" },
  dbname: { env: "PGDATABASE", treatment: "used" },
  user: { env: "PGUSER", treatment: "used" },
  password: { env: "PGPASSWORD", treatment: "used" },
  passfile: { env: "PGPASSFILE", treatment: "used" },
  sslmode: { env: "PGSSLMODE", treatment: "used" },
  sslnegotiation: { env: "PGSSLNEGOTIATION", treatment: "used" },
  sslrootcert: { env: "PGSSLROOTCERT", treatment: "used" },
  sslcrl: { env: "PGSSLCRL", treatment: "used" },
  sslcert: { env: "PGSSLCERT", treatment: "used" },
  sslkey: { env: "PGSSLKEY", treatment: "used" },
  sslpassword: { treatment: "used" },
  sslcertmode: { env: "PGSSLCERTMODE", treatment: "refused", harmless: ["allow", "disable"] },
  ssl_min_protocol_version: { env: "PGSSLMINPROTOCOLVERSION", treatment: "used" },
  ssl_max_protocol_version: { env: "PGSSLMAXPROTOCOLVERSION", treatment: "used" },
  channel_binding: { env: "PGCHANNELBINDING", treatment: "used" },
  target_session_attrs: { env: "PGTARGETSESSIONATTRS", treatment: "used" },
  connect_timeout: { env: "PGCONNECT_TIMEOUT", treatment: "used" },
  options: { env: "PGOPTIONS", treatment: "used" },

  require_auth: { env: "PGREQUIREAUTH", treatment: "refused" },
  requirepeer: { env: "PGREQUIREPEER", treatment: "refused" },
  gssencmode: { env: "PGGSSENCMODE", treatment: "refused", harmless: ["disable", "prefer"] },
  sslcrldir: { env: "PGSSLCRLDIR", treatment: "refused" },

  // Our sessions find each other by their names.
  application_name: { env: "PGAPPNAME", treatment: "ignored" },
  fallback_application_name: { treatment: "ignored" },
  client_encoding: { env: "PGCLIENTENCODING", treatment: "ignored" },
  gssdelegation: { env: "PGGSSDELEGATION", treatment: "ignored" },
  gsslib: { env: "PGGSSLIB", treatment: "ignored" },
  keepalives: { treatment: "ignored" },
  keepalives_count: { treatment: "ignored" },
  keepalives_idle: { treatment: "ignored" },
  keepalives_interval: { treatment: "ignored" },
  krbsrvname: { env: "PGKRBSRVNAME", treatment: "ignored" },
  load_balance_hosts: { env: "PGLOADBALANCEHOSTS", treatment: "ignored" },
  max_protocol_version: { env: "PGMAXPROTOCOLVERSION", treatment: "ignored" },
  min_protocol_version: { env: "PGMINPROTOCOLVERSION", treatment: "ignored" },
  oauth_client_id: { treatment: "ignored" },
  oauth_client_secret: { treatment: "ignored" },
  oauth_issuer: { treatment: "ignored" },
  oauth_scope: { treatment: "ignored" },
  replication: { treatment: "ignored" },
  scram_client_key: { treatment: "ignored" },
  scram_server_key: { treatment: "ignored" },
  sslcompression: { env: "PGSSLCOMPRESSION", treatment: "ignored" },
  sslkeylogfile: { treatment: "ignored" },
  sslsni: { env: "PGSSLSNI", treatment: "ignored" },
  tcp_user_timeout: { treatment: "ignored" },
};

/** Words from other programs' configurations that mean one of libpq's keywords. */
const FOREIGN_WORDS: Readonly<Record<string, string>> = {
  database: "dbname",
  db: "dbname",
  username: "user",
  role: "user",
  hostname: "host",
  pass: "password",
};

export function isConninfoKeyword(word: string): boolean {
  return Object.hasOwn(CONNINFO_KEYWORDS, word);
}

/** libpq's keyword for a word that people use instead. */
export function meantKeyword(word: string): string | undefined {
  return Object.hasOwn(FOREIGN_WORDS, word) ? FOREIGN_WORDS[word] : undefined;
}
