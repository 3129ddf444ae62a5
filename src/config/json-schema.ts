import { z } from "zod";
import { configSchema } from "./schema.ts";

/** The part of JSON Schema (2020-12) that describes the configuration. */
export interface JsonSchema {
  readonly type?: string;
  readonly description?: string;
  readonly default?: unknown;
  readonly enum?: readonly string[];
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly required?: readonly string[];
  readonly items?: JsonSchema;
  readonly anyOf?: readonly JsonSchema[];
  readonly additionalProperties?: boolean | JsonSchema;
}

/** The schema of the configuration file as it is written, for editors and for the reference. */
export function configJsonSchema(): JsonSchema {
  return z.toJSONSchema(configSchema, { io: "input" }) as JsonSchema;
}

/** Keys that the schema knows at a path; undefined where any key is allowed. */
export function knownKeys(schema: JsonSchema, path: readonly PropertyKey[]): readonly string[] | undefined {
  let candidates: readonly JsonSchema[] = [schema];
  for (const step of path) {
    candidates = candidates.flatMap(alternatives).flatMap((candidate) => {
      const below =
        typeof step === "number"
          ? candidate.items
          : (candidate.properties?.[String(step)] ?? candidate.additionalProperties);
      return typeof below === "object" ? [below] : [];
    });
  }
  const properties = candidates
    .flatMap(alternatives)
    .find((candidate) => candidate.properties !== undefined)?.properties;
  return properties === undefined ? undefined : Object.keys(properties);
}

function alternatives(schema: JsonSchema): readonly JsonSchema[] {
  return schema.anyOf ?? [schema];
}
