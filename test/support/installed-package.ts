/** The package as somebody installs it who has no clone: packed, and put into an empty folder. */
import { execFile, spawn } from "node:child_process";
import { chmod, cp, mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import type { ServerUser } from "../../src/demo/binaries.ts";
import type { Finished } from "./built-cli.ts";
import { withoutProgress } from "./progress-lines.ts";

const root = path.join(import.meta.dirname, "../..");
const run = promisify(execFile);

export interface RunOptions {
  readonly cwd?: string;
  /** The whole environment; default the one of this process. */
  readonly env?: NodeJS.ProcessEnv;
  readonly user?: ServerUser | undefined;
}

export class InstalledPackage implements AsyncDisposable {
  /** `node_modules/erserver` of the folder that it was installed into. */
  readonly folder: string;
  readonly #temporary: string;

  private constructor(temporary: string) {
    this.#temporary = temporary;
    this.folder = path.join(temporary, "app/node_modules/erserver");
  }

  /** Asks no registry: what the package depends on is packed from this clone. */
  static async install(): Promise<InstalledPackage> {
    const temporary = await mkdtemp(path.join(tmpdir(), "erserver-installed-"));
    try {
      // As readable as what root installs for others.
      await chmod(temporary, 0o755);
      const stage = path.join(temporary, "stage");
      const app = path.join(temporary, "app");
      await Promise.all([mkdir(stage), mkdir(app)]);
      const { files } = JSON.parse(await readFile(path.join(root, "package.json"), "utf8")) as {
        files: string[];
      };
      for (const file of ["package.json", ...files.filter((name) => name !== "dist")])
        await cp(path.join(root, file), path.join(stage, file), { recursive: true });
      const tsc = path.join(root, "node_modules/typescript/bin/tsc");
      await run(process.execPath, [
        tsc,
        "-p",
        path.join(root, "tsconfig.build.json"),
        "--outDir",
        path.join(stage, "dist"),
      ]);
      await chmod(path.join(stage, "dist/cli/main.js"), 0o755);
      await run("npm", ["pack", "--silent", "--pack-destination", temporary], { cwd: stage });
      const { version } = JSON.parse(await readFile(path.join(root, "package.json"), "utf8")) as {
        version: string;
      };
      const { stdout } = await run("npm", ["ls", "--all", "--omit=dev", "--parseable"], { cwd: root });
      const dependencies = stdout.trim().split("\n").slice(1);
      await run(
        "npm",
        [
          "install",
          "--offline",
          "--ignore-scripts",
          "--install-links",
          "--no-audit",
          "--no-fund",
          "--omit=dev",
          path.join(temporary, `erserver-${version}.tgz`),
          ...dependencies,
        ],
        { cwd: app },
      );
      await rm(stage, { recursive: true });
      return new InstalledPackage(temporary);
    } catch (error) {
      await rm(temporary, { recursive: true, force: true });
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#temporary, { recursive: true, force: true });
  }

  /** Path of a command: `erserver`, or one of the old ones. */
  command(name: string): string {
    return name === "erserver"
      ? path.join(this.folder, "../.bin/erserver")
      : path.join(this.folder, "rserv", name);
  }

  run(name: string, args: readonly string[], options: RunOptions = {}): Promise<Finished> {
    return this.shell([this.command(name), ...args].map(quoted).join(" "), options);
  }

  /** Runs a command line as a shell does. */
  async shell(line: string, { cwd = tmpdir(), env = process.env, user }: RunOptions = {}): Promise<Finished> {
    const child = spawn("/bin/sh", ["-c", line], { cwd, env, ...user, stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    let errors = "";
    child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString()));
    return new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (exit, signal) =>
        resolve({ exit, signal, output, errors: withoutProgress(errors) }),
      );
    });
  }
}

const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;
