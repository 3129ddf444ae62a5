import { ErserverError } from "../errors/erserver-error.ts";
import { someOf } from "../observability/figures.ts";
import { quoteIdent } from "../quote/ident.ts";
import type { ControlSession } from "./connect.ts";

/** A role of which objects of a database speak: a dump of it does not make the role. */
interface NeededRole {
  readonly name: string;
  /** What it may, beyond what is its own, as in CREATE ROLE. Never SUPERUSER, which nobody needs to own something. */
  readonly attributes: string;
  /** What it owns, as `pg_describe_object` names it; empty for a role that is only granted something. */
  readonly owns: readonly string[];
}

/**
 * Owners and grantees of what is in the database, and of the database. pg_shdepend knows nothing of the role that initdb made (OID 10),
 * whose relations and functions are looked up.
 */
const NEEDED_ROLES = `
  with dependent as (
      select d.classid, d.objid, d.objsubid, d.refobjid as role, d.deptype = 'o' as owner
        from pg_catalog.pg_shdepend d join pg_catalog.pg_database here on here.oid = d.dbid and here.datname = pg_catalog.current_database()
        where d.refclassid = 'pg_catalog.pg_authid'::regclass and d.deptype in ('o', 'a', 'r')
      union all select 'pg_catalog.pg_class'::regclass, oid, 0, relowner, true from pg_catalog.pg_class
        where relowner = 10 and oid >= 16384 and relkind in ('r', 'p', 'v', 'm', 'S', 'f')
      union all select 'pg_catalog.pg_proc'::regclass, oid, 0, proowner, true from pg_catalog.pg_proc where proowner = 10 and oid >= 16384),
    described as (
      select role, owner, pg_catalog.pg_describe_object(classid, objid, objsubid) as object from dependent d
        where not exists (select from pg_catalog.pg_depend e where e.classid = d.classid and e.objid = d.objid and e.deptype = 'e'))
  select r.rolname as name,
    pg_catalog.concat_ws(' ', case when r.rolcanlogin then 'LOGIN' end, case when r.rolcreatedb then 'CREATEDB' end, case when r.rolcreaterole then 'CREATEROLE' end) as attributes,
    coalesce(pg_catalog.json_agg(d.object order by d.object) filter (where d.owner), '[]')::text as owns
  from described d join pg_catalog.pg_roles r on r.oid = d.role
  group by r.oid, r.rolname, r.rolcanlogin, r.rolcreatedb, r.rolcreaterole order by r.rolname`;

/** ERS-309 for each role of which the source's objects speak and that the target does not have: a dump cannot be restored with its owners. */
export async function absentRoles(source: ControlSession, target: ControlSession): Promise<ErserverError[]> {
  const needed = await source.query<Record<"name" | "attributes" | "owns", string>>(NEEDED_ROLES);
  const there = await target.query<{ name: string }>("select rolname as name from pg_catalog.pg_roles");
  const known = new Set(there.map(({ name }) => name));
  return needed
    .filter(({ name }) => !known.has(name))
    .map((row) => roleAbsent({ ...row, owns: JSON.parse(row.owns) as string[] }));
}

function roleAbsent({ name, attributes, owns }: NeededRole): ErserverError {
  const what =
    owns.length === 0 ? "is granted something on the source's objects" : `owns ${someOf(owns)} of the source`;
  return new ErserverError("ERS-309", `role ${quoteIdent(name)} ${what}, and is not on the target`, {
    subject: name,
    remedy: `Run on the target before the dump is restored there: CREATE ROLE ${[quoteIdent(name), attributes].filter((part) => part !== "").join(" ")};`,
  });
}
