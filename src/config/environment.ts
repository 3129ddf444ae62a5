import { readFileSync, existsSync } from "node:fs";
import { homedir, userInfo } from "node:os";

/** What the configuration reads from the machine; tests pass their own. */
export interface Environment {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Home folder, where `.pgpass`, `.pg_service.conf` and `.postgresql/` are. */
  readonly home: string;
  /** Name of the operating system user: libpq's default role. */
  readonly user: string;
  /** Text of a file; throws as `readFileSync` does. */
  readonly readFile: (path: string) => string;
  readonly exists: (path: string) => boolean;
}

/** The machine that this process runs on. */
export function systemEnvironment(): Environment {
  return {
    env: process.env,
    home: homedir(),
    user: osUser(),
    readFile: (path) => readFileSync(path, "utf8"),
    exists: existsSync,
  };
}

/** A container may run under a uid that has no name; then the role must be given. */
function osUser(): string {
  try {
    return userInfo().username;
  } catch {
    return "";
  }
}

/** The reason why a file could not be read, such as ENOENT. */
export function errnoOf(error: unknown): string {
  return error instanceof Error && "code" in error && typeof error.code === "string"
    ? error.code
    : "unknown reason";
}
