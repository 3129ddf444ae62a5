import { ErserverError } from "../errors/erserver-error.ts";
import type { Config, TargetConfig } from "./config.ts";
import { type Conninfo, describeConninfo, type Host, parseConninfo } from "./conninfo.ts";
import { type Environment, errnoOf, systemEnvironment } from "./environment.ts";
import { describeIssues, isConninfoPath, type Path } from "./issues.ts";
import { configJsonSchema } from "./json-schema.ts";
import { Problems } from "./problems.ts";
import { conninfoEscape, resolveReferences } from "./references.ts";
import { type ConfigFile, configSchema } from "./schema.ts";
import { YamlDocument } from "./yaml-document.ts";

const MINIMAL_EXAMPLE = `source: postgres://replicator@ny.example/booktown
targets:
  london: postgres://replicator@london.example/booktown`;

/**
 * Reads and checks a configuration file. Throws one ErserverError that lists every problem with `file:line:col`: ERS-101 not found,
 * ERS-102 not YAML, ERS-103 wrong content, ERS-104 a connection string, ERS-105 a reference, ERS-107 not supported. Its message holds
 * no secret.
 */
export function loadConfig(path: string, environment: Environment = systemEnvironment()): Config {
  const document = new YamlDocument(readConfigFile(path, environment));
  const problems = new Problems(path, document);
  if (problems.any) throw problems.toError();

  const data = resolveAll(document.value ?? {}, [], (text, at) => {
    const escape = isConninfoPath(at) ? { escape: conninfoEscape(text) } : {};
    return (
      problems.attempt(at, () => resolveReferences(text, { environment, configPath: path, ...escape })) ?? ""
    );
  });
  const file = checkSchema(data, problems);
  const source = connectionAt(data, ["source"], problems, environment);
  const targets = connectionsOfTargets(data, problems, environment);
  checkDistinct(source, targets, problems);
  if (problems.any || file === undefined || source === undefined) throw problems.toError();
  return assemble(path, source, targets, file);
}

/** The configuration of a file that names these databases and nothing else. */
export function defaultConfig(path: string, source: Conninfo, target: TargetConfig): Config {
  return assemble(path, source, [target], configSchema.parse({ source: "", targets: { [target.name]: "" } }));
}

function readConfigFile(path: string, environment: Environment): string {
  try {
    return environment.readFile(path);
  } catch (error) {
    const code = errnoOf(error);
    const reason = code === "ENOENT" ? "does not exist" : `cannot be read (${code})`;
    throw new ErserverError("ERS-101", `configuration file "${path}" ${reason}`, {
      subject: path,
      remedy: `Name the file with -c FILE, or create it:\n\n${MINIMAL_EXAMPLE}\n\nTo see erserver work without one, run: erserver demo`,
      cause: error,
    });
  }
}

function checkSchema(data: unknown, problems: Problems): ConfigFile | undefined {
  const { data: file, error } = configSchema.safeParse(data);
  const findings = describeIssues(error?.issues ?? [], configJsonSchema(), (path) => valueAt(data, path));
  for (const { path, key, message } of findings) {
    if (key === undefined) problems.value("ERS-103", path, message);
    else problems.key("ERS-103", path, key, message);
  }
  return file;
}

/** The connection at a path of the file, undefined when the schema or a reference has found it wrong. */
function connectionAt(
  data: unknown,
  path: Path,
  problems: Problems,
  environment: Environment,
): Conninfo | undefined {
  const value = valueAt(data, path);
  if (problems.concerns(path) || (typeof value !== "string" && !isMapping(value))) return undefined;
  return problems.attempt(path, () => parseConninfo(value, environment));
}

function connectionsOfTargets(data: unknown, problems: Problems, environment: Environment): TargetConfig[] {
  const targets = valueAt(data, ["targets"]);
  return Object.keys(isMapping(targets) ? targets : {}).flatMap((name) => {
    const conninfo = connectionAt(data, ["targets", name], problems, environment);
    return conninfo === undefined ? [] : [{ name, conninfo }];
  });
}

/** Two connections to one database would replicate it onto itself, or apply everything to it twice. */
function checkDistinct(
  source: Conninfo | undefined,
  targets: readonly TargetConfig[],
  problems: Problems,
): void {
  const seen = source === undefined ? [] : [{ name: "the source", conninfo: source }];
  for (const target of targets) {
    const same = seen.find((other) => sameDatabase(other.conninfo, target.conninfo));
    if (same !== undefined) {
      const message = `is the same database as ${same.name}: ${describeConninfo(target.conninfo)}`;
      problems.value("ERS-103", ["targets", target.name], message);
    }
    seen.push(target);
  }
}

function sameDatabase(a: Conninfo, b: Conninfo): boolean {
  return a.database === b.database && a.hosts.some((one) => b.hosts.some((other) => sameServer(one, other)));
}

/** Servers with one name, as a certificate may have it, can be told apart by their addresses. */
function sameServer(a: Host, b: Host): boolean {
  if (a.port !== b.port) return false;
  if (a.hostaddr !== undefined && b.hostaddr !== undefined) return a.hostaddr === b.hostaddr;
  return a.host.toLowerCase() === b.host.toLowerCase();
}

function assemble(
  path: string,
  source: Conninfo,
  targets: readonly TargetConfig[],
  file: ConfigFile,
): Config {
  const {
    include,
    exclude,
    publish_via_partition_root: publishViaPartitionRoot,
    without_key: withoutKey,
    missing_column: missingColumn,
  } = file.tables;
  const { transactions, bytes, delay: delayMs } = file.apply.group;
  return {
    path,
    source,
    targets,
    tables: {
      include,
      exclude: exclude.map((names) => ({ ...names, columns: undefined, where: undefined })),
      publishViaPartitionRoot,
      withoutKey,
      registeredOnly: false,
      missingColumn,
    },
    capture: file.capture,
    captureLog: {
      rows: file.capture_log.rows,
      bytes: file.capture_log.bytes,
      ageMs: file.capture_log.age,
      exceeded: file.capture_log.exceeded,
    },
    gear: file.gear,
    streaming: file.streaming === "on",
    timeoutMs: file.timeout,
    apply: {
      conflict: file.apply.conflict,
      write: file.apply.write,
      mode: file.apply.mode,
      workers: file.apply.workers,
      distance: file.apply.distance,
      group: { transactions, bytes, delayMs },
      delayMs: file.apply.delay,
    },
    copyJobs: file.copy.jobs,
    binary: file.binary,
    logLevel: file.log.level,
  };
}

function resolveAll(value: unknown, path: Path, resolve: (text: string, path: Path) => string): unknown {
  if (typeof value === "string") return resolve(value, path);
  if (Array.isArray(value)) return value.map((item, index) => resolveAll(item, [...path, index], resolve));
  if (!isMapping(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, resolveAll(item, [...path, key], resolve)]),
  );
}

function valueAt(value: unknown, path: Path): unknown {
  return path.reduce<unknown>(
    (at, step) =>
      typeof at === "object" && at !== null ? (at as Record<PropertyKey, unknown>)[step] : undefined,
    value,
  );
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
