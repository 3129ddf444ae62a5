import { ErserverError } from "../errors/erserver-error.ts";
import { quoteIdent } from "../quote/ident.ts";
import { type CatalogTable, tableLabel } from "./catalog.ts";

export interface PrivilegeCheck {
  readonly side: "source" | "target";
  readonly role: string;
  readonly tables: readonly CatalogTable[];
}

const labelOf = ({ schema, name }: CatalogTable): string => tableLabel(schema, name);

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
    return missing.length === 0 ? [] : [`GRANT ${missing.join(", ")} ON ${labelOf(table)} TO ${name};`];
  });
  if (schemas.size + grants.length === 0) return;
  const concerned = tables.filter(({ missingPrivileges }) =>
    ["USAGE", ...NEEDED[side]].some((privilege) => missingPrivileges.includes(privilege)),
  );
  const labels = concerned.map(labelOf).join(", ");
  throw new ErserverError("ERS-304", `role ${name} lacks privileges on the ${side}, for ${labels}`, {
    subject: labels,
    remedy: `Run on the ${side} as the tables' owner: ${[...schemas, ...grants].join(" ")}`,
  });
}
