import { isUntestedMajor, type ServerFacts } from "../postgres/server-facts.ts";
import { TRUNCATE_PUBLICATION } from "../postgres/publications.ts";
import type { TableProblem } from "../postgres/selection.ts";
import { quoteIdent } from "../quote/ident.ts";

/** Something that the operator should know and that keeps nothing from running. */
export type Problem = Pick<TableProblem, "code" | "message" | "remedy">;

export interface Servers {
  readonly source: ServerFacts;
  readonly target: ServerFacts;
  /** The role on the target may set session_replication_role. */
  readonly replicaRole: boolean;
}

/** What these servers and roles do less or otherwise than others. */
export function limitsOf({ source, target, replicaRole }: Servers): Problem[] {
  const problems: Problem[] = [];
  const limit = (message: string, remedy: string): void => {
    problems.push({ code: "ERS-308", message, remedy });
  };
  for (const [side, { version, versionText }] of Object.entries({ source, target })) {
    if (isUntestedMajor(version))
      limit(
        `PostgreSQL ${versionText} on the ${side} is newer than what this version of erserver was tested with`,
        "Use a newer erserver if there is one, and erserver verify.",
      );
  }
  if (source.version < TRUNCATE_PUBLICATION)
    limit(
      `PostgreSQL ${source.versionText} does not publish TRUNCATE: rows that it removes on the source stay on the target`,
      "Use DELETE on the source, or upgrade it to 11 or newer.",
    );
  if (!replicaRole) problems.push(triggersFire(target));
  return problems;
}

/** What a role does that may not become a replica. */
export function triggersFire({ user, version }: ServerFacts): Problem {
  const role = quoteIdent(user);
  return {
    code: "ERS-308",
    message: `role ${role} may not set session_replication_role: triggers and foreign keys of the target fire for replicated rows`,
    remedy:
      version >= 150_000
        ? `Run on the target as superuser: GRANT SET ON PARAMETER session_replication_role TO ${role};`
        : `Run on the target as superuser: ALTER ROLE ${role} SUPERUSER; (15 and newer can grant this alone), or drop such triggers there.`,
  };
}
