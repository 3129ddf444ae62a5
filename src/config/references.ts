import { dirname, resolve } from "node:path";
import { ErserverError } from "../errors/erserver-error.ts";
import { type Environment, errnoOf } from "./environment.ts";
import { isConninfoUrl } from "./conninfo-text.ts";

const REFERENCE = /\$?\$\{([^}]*)\}/g;

export interface ReferenceOptions {
  readonly environment: Environment;
  /** Path of the configuration file: `${file:…}` is relative to its folder. */
  readonly configPath: string;
  /** How a value is written inside other text; a reference that is the whole text is always taken as it stands. */
  readonly escape?: (value: string) => string;
}

/**
 * Replaces `${env:NAME}` by an environment variable and `${file:PATH}` by a file's text without its last newline; `$${` stands for a
 * plain `${`. Throws ERS-105 when the thing referred to is not there.
 */
export function resolveReferences(text: string, options: ReferenceOptions): string {
  const { escape = (value: string) => value } = options;
  return text.replace(REFERENCE, (found: string, reference: string) => {
    if (found.startsWith("$$")) return found.slice(1);
    const value = lookUp(reference, options);
    return found === text ? value : escape(value);
  });
}

/** Escapes a value for its place in a connection string, so that a password may hold any character. */
export function conninfoEscape(conninfo: string): (value: string) => string {
  return isConninfoUrl(conninfo) ? encodeURIComponent : (value) => value.replace(/[\s'\\]/g, "\\$&");
}

function lookUp(reference: string, { environment, configPath }: ReferenceOptions): string {
  const [, kind, name = ""] = /^(env|file):(.+)$/s.exec(reference) ?? [];
  if (kind === "env") {
    // process.env has a prototype, and so something by the name of constructor.
    const value = Object.hasOwn(environment.env, name) ? environment.env[name] : undefined;
    if (value !== undefined) return value;
    throw unresolved(
      `environment variable "${name}" is not set`,
      `Set ${name} in the environment of erserver.`,
    );
  }
  if (kind === "file") {
    const path = resolve(dirname(configPath), name);
    try {
      return environment.readFile(path).replace(/\r?\n$/, "");
    } catch (error) {
      const reason = errnoOf(error);
      throw unresolved(
        `file "${path}" cannot be read (${reason})`,
        "Create the file, or let erserver's user read it.",
      );
    }
  }
  // What stands between the braces is not repeated: it may be part of a password.
  throw unresolved(
    "a ${…} reference must be of the form ${env:NAME} or ${file:PATH}",
    "Write $${ where the text itself holds ${.",
  );
}

function unresolved(message: string, remedy: string): ErserverError {
  return new ErserverError("ERS-105", message, { remedy });
}
