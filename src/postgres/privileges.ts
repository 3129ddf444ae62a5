import { ErserverError } from "../errors/erserver-error.ts";
import { quoteIdent, quoteQualified } from "../quote/ident.ts";
import type { CatalogTable } from "./catalog.ts";

export interface PrivilegeCheck {
  readonly side: "source" | "target";
  readonly role: string;
  readonly tables: readonly CatalogTable[];
}

const NEEDED = {
  source: ["SELECT"],
  target: ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"],
} as const;

/** Throws ERS-304 with every GRANT that the role needs for these tables. */
export function requirePrivileges({ side, role, tables }: PrivilegeCheck): void {
  const name = quoteIdent(role);
  const schemas = new Set(
    tables
      .filter((table) => table.missingPrivileges.includes("USAGE"))
      .map(({ schema }) => `GRANT USAGE ON SCHEMA ${quoteIdent(schema)} TO ${name};`),
  );
  const grants = tables.flatMap((table) => {
    const missing = NEEDED[side].filter((privilege) => table.missingPrivileges.includes(privilege));
    const label = quoteQualified(table.schema, table.name);
    return missing.length === 0 ? [] : [`GRANT ${missing.join(", ")} ON ${label} TO ${name};`];
  });
  if (schemas.size + grants.length === 0) return;
  throw new ErserverError("ERS-304", `role ${name} lacks privileges on the ${side}`, {
    subject: role,
    remedy: `Run on the ${side} as the tables' owner: ${[...schemas, ...grants].join(" ")}`,
  });
}
