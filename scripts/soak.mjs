/**
 * The long form of the soak: `npm run soak -- [--faults N] [--seed S] [--minutes M]`. Random faults, by default 200, in rounds that each
 * begin with an empty target and take turns with the pairs of majors. The seed of a round that failed repeats it: `--seed S --faults N`
 * with the numbers that it printed.
 */
import { spawnSync } from "node:child_process";
import path from "node:path";
import { parseArgs } from "node:util";

const ROOT = path.join(import.meta.dirname, "..");

function wholeNumber(name, text) {
  if (text === undefined) return undefined;
  if (!/^\d{1,9}$/.test(text)) throw new Error(`--${name} takes a whole number`);
  return text;
}

function settings() {
  const { values } = parseArgs({
    options: { faults: { type: "string" }, seed: { type: "string" }, minutes: { type: "string" } },
  });
  return {
    ERSERVER_SOAK: "1",
    ERSERVER_SOAK_FAULTS: wholeNumber("faults", values.faults),
    ERSERVER_SOAK_SEED: wholeNumber("seed", values.seed),
    ERSERVER_SOAK_MINUTES: wholeNumber("minutes", values.minutes),
  };
}

function soak() {
  let env;
  try {
    env = settings();
  } catch (error) {
    process.stderr.write(`${error.message}\nusage: npm run soak -- [--faults N] [--seed S] [--minutes M]\n`);
    return 2;
  }
  const given = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined));
  const vitest = path.join(ROOT, "node_modules", "vitest", "vitest.mjs");
  const args = [vitest, "run", "--project", "e2e", "test/e2e/soak.e2e.test.ts"];
  const { status } = spawnSync(process.execPath, args, {
    cwd: ROOT,
    stdio: "inherit",
    env: { ...process.env, ...given },
  });
  return status ?? 1;
}

process.exitCode = soak();
