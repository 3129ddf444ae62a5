import { expect, test } from "vitest";
import { configJsonSchema, type JsonSchema, knownKeys } from "./json-schema.ts";

function keysWithoutDescription(schema: JsonSchema, prefix = ""): string[] {
  return Object.entries(schema.properties ?? {}).flatMap(([key, below]) => [
    ...(below.description === undefined ? [prefix + key] : []),
    ...keysWithoutDescription(below, `${prefix}${key}.`),
    ...(below.items?.anyOf ?? []).flatMap((item) => keysWithoutDescription(item, `${prefix}${key}[].`)),
  ]);
}

test("every key is described", () => expect(keysWithoutDescription(configJsonSchema())).toEqual([]));

test("known keys are found through mappings, lists and alternatives", () => {
  const schema = configJsonSchema();
  expect(knownKeys(schema, [])).toContain("targets");
  expect(knownKeys(schema, ["apply", "group"])).toEqual(["transactions", "bytes", "delay"]);
  expect(knownKeys(schema, ["tables", "include", 3])).toEqual(["table", "columns", "where"]);
  expect(knownKeys(schema, ["targets"])).toBeUndefined();
});
