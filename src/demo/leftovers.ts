import { readFile, readdir, rm, stat } from "node:fs/promises";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type ServerUser, temporaryFolder } from "./binaries.ts";
import { commandLine, isRunning, sendSignal, signalServer } from "./processes.ts";

/** The number is the pid of the process that made it. */
const FOLDER_NAME = /^erserver-cluster-(\d+)-/;

/** The postmaster itself resorts to SIGKILL 5 s after an immediate stop. */
const QUIT_TIMEOUT_MS = 10_000;

/** Stops the servers and removes the folders of processes that were killed before they could do it themselves. */
export async function removeLeftovers(
  user: ServerUser | undefined,
  parent: string = temporaryFolder(user),
): Promise<void> {
  // Ours for the moment between its making and its handing over to the server user.
  const owners = [user?.uid, process.getuid?.()];
  for (const name of await readdir(parent)) {
    const creator = FOLDER_NAME.exec(name)?.[1];
    if (creator === undefined || isRunning(Number(creator))) continue;
    const folder = path.join(parent, name);
    const owner = await stat(folder).then(
      (entry) => entry.uid,
      () => undefined,
    );
    if (owner === undefined || !owners.includes(owner)) continue;
    const postmaster = Number(await readFile(path.join(folder, "pid"), "utf8").catch(() => "0"));
    // The pid may be another process's by now.
    if (postmaster > 0 && commandLine(postmaster).includes(`cluster_name=${name}`)) await quit(postmaster);
    await rm(folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

async function quit(postmaster: number): Promise<void> {
  signalServer(postmaster, "SIGCONT");
  // Not SIGKILL first: the server then takes its System V shared memory with it.
  sendSignal(postmaster, "SIGQUIT");
  const deadline = Date.now() + QUIT_TIMEOUT_MS;
  while (isRunning(postmaster) && Date.now() < deadline) await sleep(20);
  if (isRunning(postmaster)) signalServer(postmaster, "SIGKILL");
}
