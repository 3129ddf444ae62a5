import { readFileSync } from "node:fs";

/** The version of this erserver, as in its package. */
export function packageVersion(): string {
  // Beside src and dist alike.
  const file = new URL("../../package.json", import.meta.url);
  const { version }: { version: string } = JSON.parse(readFileSync(file, "utf8"));
  return version;
}
