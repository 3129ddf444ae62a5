/** Socket folders that libpq builds use by default; .pgpass calls them `localhost`. */
const DEFAULT_SOCKET_FOLDERS: ReadonlySet<string> = new Set([
  "/tmp",
  "/run/postgresql",
  "/var/run/postgresql",
]);

/** What a line of a password file must match. */
export interface PassfileKey {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
}

/**
 * The password of the first matching line of a password file, as passwordFromFile() in fe-connect.c.
 * https://www.postgresql.org/docs/current/libpq-pgpass.html
 */
export function findPassword(passfile: string, key: PassfileKey): string | undefined {
  const hosts = DEFAULT_SOCKET_FOLDERS.has(key.host) ? [key.host, "localhost"] : [key.host];
  for (const line of passfile.split(/\r?\n/)) {
    if (line.startsWith("#")) continue;
    const [host, port, database, user, password] = fields(line);
    if (password === undefined) continue;
    const matches = (field: string | undefined, ...values: string[]) =>
      field === "*" || values.some((value) => field !== undefined && unescape(field) === value);
    if (
      matches(host, ...hosts) &&
      matches(port, String(key.port)) &&
      matches(database, key.database) &&
      matches(user, key.user)
    ) {
      return unescape(password);
    }
  }
  return undefined;
}

/** Splits at colons that no backslash escapes; the fields keep their backslashes, so that `\*` is not taken for `*`. */
function fields(line: string): string[] {
  return Array.from(line.matchAll(/((?:[^:\\]|\\.|\\$)*)(?::|$)/gs), (match) => match[1] as string);
}

function unescape(field: string): string {
  return field.replace(/\\(.)/gs, "$1");
}
