import * as fc from "fast-check";
import { expect, test } from "vitest";
import { type Conninfo, parseConninfo } from "./conninfo.ts";
import type { Environment } from "./environment.ts";

const nothing: Environment = {
  env: {},
  home: "/home/anna",
  user: "anna",
  readFile: () => "",
  exists: () => false,
};

const text = fc
  .string({ unit: "binary", minLength: 1, maxLength: 20 })
  .filter((value) => !value.includes("\0"));
const host = fc.oneof(fc.domain(), fc.ipV4(), fc.ipV6(), fc.constant("/run/pg"));
const settings = fc.record({
  hosts: fc.array(fc.record({ host, port: fc.integer({ min: 1, max: 65535 }) }), {
    minLength: 1,
    maxLength: 3,
  }),
  user: text,
  password: text,
  dbname: text,
  application_name: text,
  options: text,
});
type Settings = typeof settings extends fc.Arbitrary<infer T> ? T : never;

function pairs({ hosts, ...rest }: Settings): Record<string, string> {
  return {
    host: hosts.map((one) => one.host).join(","),
    port: hosts.map((one) => one.port).join(","),
    ...rest,
  };
}

function asKeywordValue(value: Settings): string {
  return Object.entries(pairs(value))
    .map(([keyword, item]) => `${keyword} = '${item.replace(/['\\]/g, "\\$&")}'`)
    .join(" ");
}

function bracket(name: string): string {
  return name.includes(":") ? `[${name}]` : encodeURIComponent(name);
}

function asUrl({ hosts, user, password, dbname, ...rest }: Settings): string {
  const places = hosts.map((one) => `${bracket(one.host)}:${one.port}`).join(",");
  const query = Object.entries(rest).map(([keyword, item]) => `${keyword}=${encodeURIComponent(item)}`);
  return `postgres://${encodeURIComponent(user)}:${encodeURIComponent(password)}@${places}/${encodeURIComponent(dbname)}?${query.join("&")}`;
}

function revealed(conninfo: Conninfo): unknown {
  return { ...conninfo, password: conninfo.password?.reveal() };
}

test("a URL, a keyword=value string and a mapping of the same settings mean the same", () => {
  fc.assert(
    fc.property(settings, (value) => {
      const [url, keywordValue, mapping] = [asUrl(value), asKeywordValue(value), pairs(value)].map((form) =>
        revealed(parseConninfo(form, nothing)),
      );
      expect(keywordValue).toEqual(url);
      expect(mapping).toEqual(url);
      expect(url).toMatchObject({
        hosts: value.hosts,
        user: value.user,
        password: value.password,
        database: value.dbname,
      });
    }),
  );
});
