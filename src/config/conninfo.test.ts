import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { ErserverError } from "../errors/erserver-error.ts";
import { type Conninfo, describeConninfo, parseConninfo, passwordFor } from "./conninfo.ts";
import type { Environment } from "./environment.ts";

/** A machine with nothing on it but what a test puts there. */
function environment(env: Environment["env"] = {}, files: Record<string, string> = {}): Environment {
  return {
    env,
    home: "/home/anna",
    user: "anna",
    readFile: (path) => {
      if (files[path] === undefined) throw Object.assign(new Error("no such file"), { code: "ENOENT" });
      return files[path];
    },
    exists: (path) => Object.hasOwn(files, path),
  };
}

function parse(
  value: Parameters<typeof parseConninfo>[0],
  env?: Environment["env"],
  files?: Record<string, string>,
): Conninfo {
  return parseConninfo(value, environment(env, files));
}

function failure(action: () => unknown): ErserverError {
  try {
    action();
  } catch (error) {
    if (error instanceof ErserverError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

describe("what a connection string means", () => {
  test.each<[string, string]>([
    ["postgres://bob@ny.example/booktown", "bob@ny.example:5432/booktown"],
    ["postgresql://bob:pw@ny.example:6000/booktown", "bob@ny.example:6000/booktown"],
    ["postgres://", "anna@/tmp:5432/anna"],
    ["postgres:///booktown", "anna@/tmp:5432/booktown"],
    ["postgres://ny.example", "anna@ny.example:5432/anna"],
    ["postgres://ny.example?user=bob", "bob@ny.example:5432/bob"],
    ["postgres://a,b:5433,[::1]:5434/db", "anna@a:5432,b:5433,[::1]:5434/db"],
    ["postgres://bob@%2Fvar%2Frun/db", "bob@/var/run:5432/db"],
    ["postgres:///db?host=/run/pg&port=6543", "anna@/run/pg:6543/db"],
    ["postgres://b%40b:p%3Aw@h/d%2Fb", "b@b@h:5432/d/b"],
    ["postgres://bob:@h/db", "bob@h:5432/db"],
    ["host=ny.example user=bob dbname=booktown", "bob@ny.example:5432/booktown"],
    ["host = a,b port = 5432,5433 dbname=db", "anna@a:5432,b:5433/db"],
    ["host=a,b port=6000 dbname=db", "anna@a:6000,b:6000/db"],
    ["host=a,b port=,6000 dbname=db", "anna@a:5432,b:6000/db"],
    ["hostaddr=10.0.0.1 dbname=db", "anna@10.0.0.1:5432/db"],
    [String.raw`user='it\'s me' dbname=a\ b host='' `, "it's me@/tmp:5432/a b"],
    ["host=@abstract", "anna@@abstract:5432/anna"],
    ["", "anna@/tmp:5432/anna"],
    ["host=a host=b", "anna@b:5432/anna"],
  ])("%s", (text, expected) => expect(describeConninfo(parse(text))).toBe(expected));

  test("every field that erserver uses", () => {
    const conninfo = parse(
      "host=a hostaddr=10.0.0.1 password=pw passfile=/p sslmode=verify-full sslnegotiation=direct sslrootcert=/r sslcrl=/l sslcert=/c" +
        " sslkey=/k sslpassword=sp ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.3 channel_binding=require" +
        " target_session_attrs=read-write connect_timeout=10 options='-c search_path=x'",
      {},
      { "/r": "", "/l": "", "/c": "", "/k": "" },
    );
    expect(conninfo.password?.reveal()).toBe("pw");
    expect(conninfo.sslpassword?.reveal()).toBe("sp");
    expect(conninfo).toMatchObject({
      hosts: [{ host: "a", port: 5432, hostaddr: "10.0.0.1" }],
      passfile: "/p",
      sslmode: "verify-full",
      sslnegotiation: "direct",
      sslrootcert: "/r",
      sslcrl: "/l",
      sslcert: "/c",
      sslkey: "/k",
      sslMinProtocolVersion: "TLSv1.3",
      sslMaxProtocolVersion: "TLSv1.3",
      channelBinding: "require",
      targetSessionAttrs: "read-write",
      connectTimeout: 10,
      options: "-c search_path=x",
    });
  });

  test("libpq's defaults", () => {
    expect(parse("")).toMatchObject({
      password: undefined,
      passfile: "/home/anna/.pgpass",
      sslmode: "prefer",
      sslrootcert: undefined,
      sslMinProtocolVersion: "TLSv1.2",
      channelBinding: "prefer",
      targetSessionAttrs: "any",
      connectTimeout: undefined,
    });
    expect(parse("", {}, { "/home/anna/.postgresql/root.crt": "" }).sslrootcert).toBe(
      "/home/anna/.postgresql/root.crt",
    );
    expect(describeConninfo(parse("", {}, { "/var/run/postgresql": "" }))).toBe(
      "anna@/var/run/postgresql:5432/anna",
    );
    expect(parse("sslrootcert=system").sslmode).toBe("verify-full");
    expect(parse("postgres://h/db?ssl=true").sslmode).toBe("require");
    expect(parse("connect_timeout=0").connectTimeout).toBeUndefined();
  });

  test("a mapping takes libpq's keywords", () => {
    const conninfo = parse({ host: "h", port: 6000, user: "bob", password: "p w", dbname: "db" });
    expect(describeConninfo(conninfo)).toBe("bob@h:6000/db");
    expect(conninfo.password?.reveal()).toBe("p w");
  });

  test("keywords that erserver does not need are accepted", () => {
    const text =
      "keepalives=1 load_balance_hosts=random gssencmode=prefer client_encoding=auto application_name=x";
    expect(parse(text).user).toBe("anna");
  });
});

describe("precedence", () => {
  const env = {
    PGHOST: "env.example",
    PGPORT: "1111",
    PGUSER: "env",
    PGDATABASE: "envdb",
    PGSSLMODE: "require",
  };
  const files = {
    "/home/anna/.pg_service.conf":
      "# mine\n[other]\nhost=no\n[ny]\nhost=service.example\nport=2222\nport=9\n[end]\nuser=no\n",
  };

  test("explicit, then service, then environment", () => {
    const conninfo = parse("service=ny port=3333", env, files);
    expect(describeConninfo(conninfo)).toBe("env@service.example:3333/envdb");
    expect(conninfo.sslmode).toBe("require");
  });

  test("PGSERVICE names a service, PGSERVICEFILE its file", () => {
    const elsewhere = { "/srv": "[ny]\nhost=elsewhere.example\n" };
    expect(describeConninfo(parse("", { PGSERVICE: "ny", PGSERVICEFILE: "/srv" }, elsewhere))).toBe(
      "anna@elsewhere.example:5432/anna",
    );
  });

  test("the system's service file serves what the user's does not define", () => {
    const system = { ...files, "/etc/pg/pg_service.conf": "[tokyo]\nhost=tokyo.example\n" };
    expect(describeConninfo(parse("service=tokyo", { PGSYSCONFDIR: "/etc/pg" }, system))).toBe(
      "anna@tokyo.example:5432/anna",
    );
  });

  test("a URL that lists hosts without ports does not take them from the environment", () => {
    expect(describeConninfo(parse("postgres://a,b/db", { PGPORT: "6000" }))).toBe("anna@a:5432,b:5432/db");
    expect(describeConninfo(parse("postgres://a/db", { PGPORT: "6000" }))).toBe("anna@a:6000/db");
  });

  test("an empty explicit value keeps the environment's out", () => {
    expect(describeConninfo(parse("host='' user=bob", { PGHOST: "env.example" }))).toBe("bob@/tmp:5432/bob");
  });
});

describe("what is refused, with a message that names the keyword and no value", () => {
  test.each<[string, Parameters<typeof parseConninfo>[0], string, RegExp]>([
    ["an unknown keyword", "hots=x", "ERS-104", /unknown keyword "hots".*Did you mean "host"\?/],
    ["another program's word", { database: "x" }, "ERS-104", /Did you mean "dbname"\?/],
    [
      "an unknown URL parameter",
      "postgres://h/db?ssl_mode=require",
      "ERS-104",
      /unknown keyword "ssl_mode".*"sslmode"/,
    ],
    [
      "a raw & in a URL's password",
      "postgres://u@h/db?password=a&hunter2=x",
      "ERS-104",
      /keyword 2 of a connection string is not one that libpq knows/,
    ],
    ["a quote inside of a quoted password", "host=h password='a'hunter2=x'", "ERS-104", /keyword 3 of/],
    ["a word of a mapping like no keyword", { password: "a", hunter2: "x" }, "ERS-104", /keyword 2 of/],
    ["a URL parameter without =", "postgres://h/db?sslmode", "ERS-104", /not of the form "keyword=value"/],
    ["a word without =", "host=h hunter2", "ERS-104", /missing "=" after the word at character 7/],
    ["an unquoted password with a blank", "password=my hunter2 host=h", "ERS-104", /word after the password/],
    [
      "an unquoted password that looks like a keyword",
      "password=my hunter2=x",
      "ERS-104",
      /word after the password/,
    ],
    ["an open quote", "password='hunter2", "ERS-104", /value of "password" has no closing quote/],
    ["a raw @ in a password", "postgres://bob:hun@ter2@h/db", "ERS-104", /second "@"/],
    ["a raw / in a password", "postgres://bob:1/hunter2@h/db", "ERS-104", /second "@"/],
    [
      "a bad percent sign",
      "postgres://bob:hunter2%@h/db",
      "ERS-104",
      /password of a URL is not validly percent-encoded/,
    ],
    [
      "bytes that are no UTF-8",
      "postgres://bob:hunter2%ff@h/db",
      "ERS-104",
      /password of a URL is not validly/,
    ],
    [
      "a port that is no number",
      "port=hunter2",
      "ERS-104",
      /"port" of a connection is not a number from 1 to 65535/,
    ],
    [
      "a port that is too large",
      "postgres://h:65536/db",
      "ERS-104",
      /"port" of a connection is not a number/,
    ],
    ["an IPv6 address without brackets", "postgres://::1/db", "ERS-104", /"port" of a connection/],
    [
      "a wrong sslmode",
      "sslmode=hunter2",
      "ERS-104",
      /"sslmode" of a connection must be one of disable, allow/,
    ],
    [
      "a weak sslmode with system certificates",
      "sslrootcert=system sslmode=require",
      "ERS-104",
      /needs sslmode=verify-full/,
    ],
    ["too few ports", "host=a,b,c port=1,2", "ERS-104", /"port" does not list as many ports/],
    ["hosts and addresses that do not pair", "host=a,b hostaddr=1", "ERS-104", /"host" and "hostaddr"/],
    ["a name as address", "host=a hostaddr=hunter2", "ERS-104", /"hostaddr" of a connection is not an IP/],
    [
      "an early handshake with an sslmode that may do without",
      "host=a sslnegotiation=direct",
      "ERS-104",
      /sslnegotiation=direct needs an sslmode that insists/,
    ],
    [
      "TLS versions the wrong way round",
      "host=a ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2",
      "ERS-104",
      /ssl_max_protocol_version is older/,
    ],
    [
      "a timeout that is no number",
      "connect_timeout=hunter2",
      "ERS-104",
      /"connect_timeout" of a connection is not/,
    ],
    ["a number for a password", { password: 7 }, "ERS-104", /"password" of a connection must be text/],
    ["a service that is not defined", "service=ny", "ERS-105", /service "ny" is not defined/],
    [
      "a protection that is not supported",
      "require_auth=scram-sha-256",
      "ERS-107",
      /"require_auth" of a connection asks for/,
    ],
    ["GSSAPI encryption", "gssencmode=require", "ERS-107", /"gssencmode"/],
  ])("%s", (_, value, code, message) => {
    const error = failure(() => parse(value));
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
    expect(error.remedy).not.toBe("");
    expect(inspect(error)).not.toContain("hunter2");
  });

  test("a wrong variable is named", () => {
    expect(failure(() => parse("", { PGSSLMODE: "x" })).message).toMatch(
      /^the variable PGSSLMODE must be one of/,
    );
  });

  test("a wrong line of a service file is given with its number", () => {
    const error = failure(() =>
      parse("service=ny", {}, { "/home/anna/.pg_service.conf": "[ny]\nhost=a\nhost = hunter2\n" }),
    );
    expect(error.subject).toBe("/home/anna/.pg_service.conf:3");
    expect(inspect(error)).not.toContain("hunter2");
  });

  test("a service file that is named and absent is an error", () => {
    expect(failure(() => parse("service=ny", { PGSERVICEFILE: "/nowhere" }))).toMatchObject({
      code: "ERS-105",
    });
  });
});

describe("the files of TLS", () => {
  test.each(["verify-ca", "verify-full"])("%s without a root certificate is refused as by libpq", (mode) => {
    const error = failure(() => parse(`host=a sslmode=${mode}`));
    expect(error).toMatchObject({ code: "ERS-104", message: expect.stringContaining(`sslmode=${mode}`) });
    expect(error.remedy).toContain("sslrootcert=system");
    expect(error.remedy).toContain("/home/anna/.postgresql/root.crt");
    const files = { "/home/anna/.postgresql/root.crt": "", "/ca": "" };
    expect(parse(`host=a sslmode=${mode}`, {}, files).sslrootcert).toBe("/home/anna/.postgresql/root.crt");
    expect(parse(`host=a sslmode=${mode} sslrootcert=/ca`, {}, files).sslrootcert).toBe("/ca");
  });

  test("a Unix socket needs no root certificate, an address beside it does", () => {
    expect(parse("host=/run/pg sslmode=verify-full").sslmode).toBe("verify-full");
    expect(parse("", { PGSSLMODE: "verify-full" }).sslmode).toBe("verify-full");
    for (const text of ["host=/run/pg hostaddr=10.0.0.1", "host=/run/pg,a"]) {
      expect(failure(() => parse(`${text} sslmode=verify-full`)).code).toBe("ERS-104");
    }
  });

  test.each(["sslrootcert", "sslcrl", "sslcert", "sslkey"])(
    "%s that cannot be read is an error that names it and the file",
    (keyword) => {
      const text = `host=a sslmode=require ${keyword}=/no/where`;
      expect(failure(() => parse(text))).toMatchObject({
        code: "ERS-105",
        message: `${keyword} names "/no/where", which does not exist`,
        remedy: expect.stringContaining(`Correct ${keyword}`),
      });
      const denied: Environment = {
        ...environment(),
        readFile: () => {
          throw Object.assign(new Error("no"), { code: "EACCES" });
        },
      };
      expect(failure(() => parseConninfo(text, denied)).message).toContain("cannot be read (EACCES)");
    },
  );

  test("none is looked at without TLS", () => {
    expect(parse("host=a sslmode=disable sslrootcert=/no/where").sslrootcert).toBe("/no/where");
    expect(parse("host=/run/pg sslcert=/no/where").sslcert).toBe("/no/where");
  });
});

describe("the password", () => {
  let folder = "";
  beforeEach(() => (folder = mkdtempSync(join(tmpdir(), "passfile-"))));
  afterEach(() => rmSync(folder, { recursive: true }));

  const passfile = (text: string, mode = 0o600): string => {
    const path = join(folder, "pass");
    writeFileSync(path, text);
    chmodSync(path, mode);
    return path;
  };

  test("an explicit one wins over the file", async () => {
    const conninfo = parse(`password=own passfile=${passfile("*:*:*:*:file\n")}`);
    expect((await passwordFor(conninfo, { host: "h", port: 5432 }))?.reveal()).toBe("own");
  });

  test("the file is asked for each host", async () => {
    const conninfo = parse(
      `host=a,b user=bob dbname=db passfile=${passfile("a:5432:db:bob:first\nb:*:*:bob:second\n")}`,
    );
    const found = await Promise.all(conninfo.hosts.map((host) => passwordFor(conninfo, host)));
    expect(found.map((secret) => secret?.reveal())).toEqual(["first", "second"]);
  });

  test("a file that others may read is not used, and a warning says so", async () => {
    const warnings: string[] = [];
    const conninfo = parse(`passfile=${passfile("*:*:*:*:file\n", 0o640)}`);
    expect(
      await passwordFor(conninfo, { host: "h", port: 5432 }, (message) => warnings.push(message)),
    ).toBeUndefined();
    expect(warnings).toEqual([expect.stringContaining("chmod 0600")]);
  });

  test("a folder instead of a file is not used, and an absent file is no matter", async () => {
    const warnings: string[] = [];
    const warn = (message: string) => warnings.push(message);
    expect(await passwordFor(parse(`passfile=${folder}`), { host: "h", port: 5432 }, warn)).toBeUndefined();
    expect(
      await passwordFor(parse(`passfile=${folder}/none`), { host: "h", port: 5432 }, warn),
    ).toBeUndefined();
    expect(warnings).toEqual([expect.stringContaining("not a plain file")]);
  });

  test("never shows in any form of the connection", () => {
    const conninfo = parse("password=hunter2 sslpassword=hunter2 host=h");
    const forms = [
      inspect(conninfo, { depth: 9, showHidden: true }),
      JSON.stringify(conninfo),
      String(conninfo.password),
      describeConninfo(conninfo),
    ];
    for (const form of forms) expect(form).not.toContain("hunter2");
    expect(String(conninfo.password)).toBe("[redacted]");
    expect(Object.keys(conninfo.password ?? {})).toEqual([]);
  });
});
