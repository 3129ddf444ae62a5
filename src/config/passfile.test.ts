import { expect, test } from "vitest";
import { findPassword } from "./passfile.ts";

const key = { host: "ny.example", port: 5432, database: "db", user: "bob" };

test.each([
  ["an exact line", "ny.example:5432:db:bob:pw", "pw"],
  ["wildcards", "*:*:*:*:pw", "pw"],
  ["the first line that matches", "*:*:*:*:one\nny.example:5432:db:bob:two", "one"],
  ["no other port", "ny.example:5433:db:bob:pw", undefined],
  ["no other role", "*:*:*:ann:pw", undefined],
  ["escaped colons and backslashes", String.raw`*:*:*:*:a\:b\\c`, String.raw`a:b\c`],
  ["the password up to an unescaped colon", "*:*:*:*:a:b", "a"],
  ["no comment", "#*:*:*:*:pw", undefined],
  ["Windows line ends", "no:1:x:y:z\r\n*:*:*:*:pw\r\n", "pw"],
  ["no short line", "*:*:*", undefined],
  ["an escaped star as a star", String.raw`\*:*:*:*:pw`, undefined],
  ["an empty password", "*:*:*:*:", ""],
])("finds %s", (_, text, password) => expect(findPassword(text, key)).toBe(password));

const socket = (host: string) => ({ ...key, host });

test("a default socket folder is localhost, another one its path", () => {
  expect(findPassword("localhost:*:*:*:pw", socket("/var/run/postgresql"))).toBe("pw");
  expect(findPassword("localhost:*:*:*:pw", socket("/srv/pg"))).toBeUndefined();
  expect(findPassword("/srv/pg:*:*:*:pw", socket("/srv/pg"))).toBe("pw");
});

test("an IPv6 address is written with escaped colons", () => {
  expect(findPassword(String.raw`\:\:1:*:*:*:pw`, { ...key, host: "::1" })).toBe("pw");
});
