import { spawnSync } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";

/** Whether the process exists and has not ended; a zombie has ended, only its parent has not looked yet. */
export function isRunning(pid: number): boolean {
  if (process.platform === "linux") return (procStat(pid)?.state ?? "Z") !== "Z";
  return sendSignal(pid, 0);
}

/** Sends a signal. False when there is no such process; one that is another user's exists. */
export function sendSignal(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, signal);
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}

/**
 * Signals a postmaster and its children; each child is a session of its own, so a process group would not reach them.
 * @returns the processes that were signalled.
 */
export function signalServer(postmaster: number, signal: "SIGSTOP" | "SIGCONT" | "SIGKILL"): number[] {
  // A stopped postmaster forks no further child while we look.
  if (signal !== "SIGCONT") sendSignal(postmaster, "SIGSTOP");
  const pids = [postmaster, ...childrenOf(postmaster)];
  for (const pid of pids) sendSignal(pid, signal);
  return pids;
}

/** The command line, arguments separated by spaces or NUL; empty when the process has ended. */
export function commandLine(pid: number): string {
  if (process.platform !== "linux") return ps(["-o", "command=", "-p", String(pid)]);
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch {
    return "";
  }
}

function childrenOf(parent: number): number[] {
  if (process.platform !== "linux") {
    const rows = ps(["-A", "-o", "pid=,ppid="]).split("\n");
    return rows
      .map((row) => row.trim().split(/\s+/).map(Number))
      .flatMap(([pid, ppid]) => (ppid === parent && pid !== undefined ? [pid] : []));
  }
  // Not `ps`: slim images come without it.
  const pids = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
  return pids.filter((pid) => procStat(pid)?.parent === parent);
}

/** https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html: `pid (name) state ppid …`; the name may hold anything. */
function procStat(pid: number): { state: string; parent: number } | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    const [state = "", parent] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return { state, parent: Number(parent) };
  } catch {
    return undefined;
  }
}

function ps(args: string[]): string {
  return spawnSync("ps", args, { encoding: "utf8" }).stdout;
}
