#!/usr/bin/env node
import { runProgram } from "./program.ts";
import { processTerminal } from "./terminal.ts";

// Whoever reads us has seen enough: `erserver status --watch | head`.
process.stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 0 : 1));

const terminal = processTerminal();
const exitCode = await runProgram(process.argv.slice(2), terminal);
// Node takes its listeners away while it ends by itself: one more Ctrl-C would then be what ended us.
if (terminal.interrupted.aborted) process.exit(exitCode);
process.exitCode = exitCode;
