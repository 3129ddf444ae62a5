import { join } from "node:path";
import { ErserverError } from "../errors/erserver-error.ts";
import { isConninfoKeyword } from "./conninfo-keywords.ts";
import type { ConninfoPairs } from "./conninfo-text.ts";
import type { Environment } from "./environment.ts";

/** Where Debian's and Red Hat's packages of libpq look when PGSYSCONFDIR is not set. */
const SYSTEM_FOLDERS = ["/etc/postgresql-common", "/etc/sysconfig/pgsql"];

/**
 * The settings of a service, from the user's service file or else the system's, as parseServiceInfo() in fe-connect.c.
 * Throws ERS-105 when no file defines it, ERS-104 when the file is malformed.
 * https://www.postgresql.org/docs/current/libpq-pgservice.html
 */
export function readService(
  service: string,
  servicefile: string | undefined,
  environment: Environment,
): ConninfoPairs {
  const { env, home } = environment;
  const named = servicefile ?? env.PGSERVICEFILE;
  const user = named === undefined || named === "" ? join(home, ".pg_service.conf") : named;
  if (user === named && !environment.exists(user)) {
    throw new ErserverError("ERS-105", `service file "${user}" does not exist`, {
      subject: service,
      remedy: "Create the file, or correct PGSERVICEFILE.",
    });
  }
  const folders = env.PGSYSCONFDIR === undefined ? SYSTEM_FOLDERS : [env.PGSYSCONFDIR];
  const files = [user, ...folders.map((folder) => join(folder, "pg_service.conf"))];
  for (const file of files) {
    if (!environment.exists(file)) continue;
    const pairs = parseService(environment.readFile(file), service, file);
    if (pairs !== undefined) return pairs;
  }
  throw new ErserverError("ERS-105", `service "${service}" is not defined`, {
    subject: service,
    remedy: `Add a section [${service}] to ${user}.`,
  });
}

/** One section of a service file, undefined when it is not there. Throws ERS-104 with the line. */
function parseService(text: string, service: string, file: string): ConninfoPairs | undefined {
  let pairs: [string, string][] | undefined;
  let inside = false;
  for (const [index, raw] of text.split("\n").entries()) {
    const line = raw.trim();
    if (line === "" || line.startsWith("#")) continue;
    if (line.startsWith("[")) {
      if (inside) break;
      inside = line === `[${service}]`;
      if (inside) pairs = [];
      continue;
    }
    if (!inside) continue;
    const [, keyword = "", value = ""] = /^([^=]*)=(.*)$/.exec(line) ?? [];
    if (!isConninfoKeyword(keyword) || keyword === "service" || keyword === "servicefile") {
      throw new ErserverError(
        "ERS-104",
        `${file}:${index + 1}: not a line of the form "keyword=value" with a keyword of libpq`,
        {
          subject: `${file}:${index + 1}`,
          remedy: "Correct the line; there are no spaces around the equals sign.",
        },
      );
    }
    // The first of several lines counts, as in libpq.
    if (!pairs?.some(([known]) => known === keyword)) pairs?.push([keyword, value]);
  }
  return pairs;
}
