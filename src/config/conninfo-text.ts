import { ErserverError } from "../errors/erserver-error.ts";
import { CONNINFO_KEYWORDS, isConninfoKeyword, meantKeyword } from "./conninfo-keywords.ts";
import { didYouMean } from "./did-you-mean.ts";

/** Keyword and value pairs, in the order of the text. */
export type ConninfoPairs = readonly (readonly [keyword: string, value: string])[];

const URL_START = /^postgres(?:ql)?:\/\//;

/** ERS-104. The message must not repeat text of the connection string other than a keyword: any of it can be part of a password. */
export function conninfoError(message: string, remedy?: string): ErserverError {
  return new ErserverError("ERS-104", message, {
    remedy:
      remedy ?? "Write the connection string as psql takes it: a postgres:// URL or keyword=value pairs.",
  });
}

export function isConninfoUrl(text: string): boolean {
  return URL_START.test(text);
}

/**
 * Throws ERS-104 for a word that libpq does not know, `number` counting the keywords from 1. Only a word like a keyword is repeated:
 * another may be the rest of a password that holds the character which ends it.
 */
export function checkKeyword(word: string, number: number): void {
  if (isConninfoKeyword(word)) return;
  const hint = /^\w{1,40}$/.test(word) ? keywordHint(word) : "";
  if (hint !== "") throw conninfoError(`unknown keyword "${word}" in a connection string.${hint}`);
  throw conninfoError(
    `keyword ${number} of a connection string is not one that libpq knows`,
    'Correct it. If it is part of the value before: put the value in quotes; in a URL, percent-encode "&" as %26.',
  );
}

function keywordHint(word: string): string {
  const meant = meantKeyword(word);
  return meant === undefined ? didYouMean(word, Object.keys(CONNINFO_KEYWORDS)) : ` Did you mean "${meant}"?`;
}

/** Splits a URL or a keyword=value string as libpq does. Throws ERS-104. */
export function splitConninfo(text: string): ConninfoPairs {
  if (text.includes("\0")) throw conninfoError("a connection string holds a NUL character");
  return isConninfoUrl(text) ? splitUrl(text) : splitKeywordValue(text);
}

/** As conninfo_parse() in fe-connect.c. */
function splitKeywordValue(text: string): ConninfoPairs {
  const pairs: [string, string][] = [];
  const token = /\s*([^=\s]+)\s*(=)?\s*(?:'((?:[^'\\]|\\[^])*)(')?|((?:[^\s\\]|\\[^])*)\\?)/y;
  const end = text.trimEnd().length;
  let passwordBefore = false;
  while (token.lastIndex < end) {
    const at = token.lastIndex;
    const match = token.exec(text);
    const [, keyword = "", equals, quoted, closing, plain] = match ?? [];
    if (match === null || equals === undefined || !isConninfoKeyword(keyword)) {
      if (passwordBefore) {
        throw conninfoError(
          "the word after the password is not a keyword.",
          "Put the password in single quotes: password='…'.",
        );
      }
      if (match !== null && equals !== undefined) checkKeyword(keyword, pairs.length + 1);
      throw conninfoError(`missing "=" after the word at character ${at + 1} of a connection string`);
    }
    if (quoted !== undefined && closing === undefined) {
      throw conninfoError(`the quoted value of "${keyword}" has no closing quote`);
    }
    pairs.push([keyword, (quoted ?? plain ?? "").replace(/\\([^])/g, "$1")]);
    passwordBefore = plain !== undefined && (keyword === "password" || keyword === "sslpassword");
  }
  return pairs;
}

const ENCODE_REMEDY =
  'Percent-encode special characters in the URL: "@" is %40, "/" is %2F, ":" is %3A, "%" is %25.';

/** As conninfo_uri_parse_options() in fe-connect.c, except that a raw `@` behind the user part is refused: it always is a forgotten %40. */
function splitUrl(url: string): ConninfoPairs {
  const pairs: [string, string][] = [];
  const add = (keyword: string, raw: string): void => {
    if (raw !== "") pairs.push([keyword, percentDecode(raw, keyword)]);
  };
  const rest = url.replace(URL_START, "");
  const [userPart = ""] = /^[^@/]*@/.exec(rest) ?? [];
  const { user = "", password = "" } = /^(?<user>[^:]*):?(?<password>.*)@$/s.exec(userPart)?.groups ?? {};
  add("user", user);
  add("password", password);

  const [, hostPart = "", database = "", query] =
    /^([^/?]*)(?:\/([^?]*))?(?:\?(.*))?$/s.exec(rest.slice(userPart.length)) ?? [];
  if (hostPart.includes("@") || database.includes("@"))
    throw conninfoError('a URL has a second "@" before its "?"', ENCODE_REMEDY);
  const hosts: string[] = [];
  const ports: string[] = [];
  for (const part of hostPart.split(",")) {
    const match = /^(?:\[([^\]]+)\]|([^:[\]]*))(?::(.*))?$/s.exec(part);
    if (match === null)
      throw conninfoError(
        "a host in a URL is not understood",
        "Put an IPv6 address in brackets: postgres://[::1]:5432/db.",
      );
    hosts.push(match[1] ?? match[2] ?? "");
    ports.push(match[3] ?? "");
  }
  add("host", hosts.join(","));
  add("port", ports.join(","));
  add("dbname", database);
  const parameters = query === undefined || query === "" ? [] : query.replace(/&$/, "").split("&");
  pairs.push(...parameters.map((parameter, index) => splitParameter(parameter, index + 1)));
  return pairs;
}

function splitParameter(parameter: string, number: number): [string, string] {
  const [name = "", value, ...more] = parameter.split("=");
  if (value === undefined || more.length > 0) {
    throw conninfoError(
      'a URL parameter is not of the form "keyword=value"',
      'Percent-encode "=" as %3D and "&" as %26 inside a value.',
    );
  }
  const keyword = percentDecode(name, "keyword");
  // JDBC's way to ask for TLS, which libpq takes as well.
  if (keyword === "ssl" && value === "true") return ["sslmode", "require"];
  checkKeyword(keyword, number);
  return [keyword, percentDecode(value, keyword)];
}

function percentDecode(text: string, what: string): string {
  const failure = () => conninfoError(`the ${what} of a URL is not validly percent-encoded`, ENCODE_REMEDY);
  if (/%(?![0-9A-Fa-f]{2})|%00/.test(text)) throw failure();
  try {
    return decodeURIComponent(text);
  } catch {
    throw failure();
  }
}
