import { expect, test } from "vitest";
import { catalogTable } from "../../test/support/catalog.ts";
import { requirePrivileges } from "./privileges.ts";

const t = catalogTable({ name: "t", missingPrivileges: ["INSERT", "TRUNCATE", "USAGE"] });
const u = catalogTable({ name: "U", missingPrivileges: ["SELECT"] });

test("what the source's role needs is to read", () => {
  requirePrivileges({
    side: "source",
    role: "pma",
    tables: [catalogTable({ missingPrivileges: ["INSERT", "TRUNCATE"] })],
  });
  expect(() => requirePrivileges({ side: "source", role: "pma", tables: [t, u] })).toThrow(
    expect.objectContaining({
      code: "ERS-304",
      remedy:
        'Run on the source as the tables\' owner: GRANT USAGE ON SCHEMA "public" TO "pma"; GRANT SELECT ON public."U" TO "pma";',
    }),
  );
});

test("what the target's role lacks is named with each GRANT", () => {
  expect(() => requirePrivileges({ side: "target", role: "pma", tables: [u, t] })).toThrow(
    expect.objectContaining({
      remedy:
        'Run on the target as the tables\' owner: GRANT USAGE ON SCHEMA "public" TO "pma"; GRANT SELECT ON public."U" TO "pma"; GRANT INSERT, TRUNCATE ON public.t TO "pma";',
    }),
  );
});
