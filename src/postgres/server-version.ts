/** `server_version_num`: 150018 is 15.18. https://www.postgresql.org/docs/current/runtime-config-preset.html */
export type ServerVersionNumber = number;

export const OLDEST_SOURCE_MAJOR = 10;
export const OLDEST_TARGET_MAJOR = 10;
/** The newest major that the tests cover; newer servers are accepted with a warning. */
export const NEWEST_TESTED_MAJOR = 18;

export function majorOf(version: ServerVersionNumber): number {
  return Math.floor(version / 10_000);
}
