import { describe, expect, test } from "vitest";
import { ErserverError } from "../errors/erserver-error.ts";
import { ServerError } from "../errors/server-error.ts";
import { createLogger, type Logger, type LoggerOptions } from "./log.ts";

function record(options: Partial<LoggerOptions>, action: (log: Logger) => void): string[] {
  const lines: string[] = [];
  action(createLogger({ level: "info", format: "json", write: (line) => lines.push(line), ...options }));
  return lines;
}

function fields(action: (log: Logger) => void): Record<string, unknown> {
  const [line = "{}"] = record({}, action);
  return JSON.parse(line) as Record<string, unknown>;
}

describe("JSON lines", () => {
  test("hold time, level, message, and the fields of the line and its logger", () => {
    const line = fields((log) =>
      log.child({ pipeline: "london" }).warn("reconnecting", { attempt: 3, lsn: 22n }),
    );
    expect(line).toMatchObject({
      level: "warn",
      pipeline: "london",
      msg: "reconnecting",
      attempt: 3,
      lsn: "22",
    });
    expect(Object.keys(line).toSorted()).toEqual(["attempt", "level", "lsn", "msg", "pipeline", "time"]);
    expect(new Date(String(line.time)).toISOString()).toBe(line.time);
  });

  test("below the level are not written, in children neither", () => {
    const lines = record({ level: "warn" }, (log) => {
      log.info("a");
      log.child({ pipeline: "x" }).debug("b");
      log.child({ pipeline: "x" }).error("c");
    });
    expect(lines).toHaveLength(1);
  });

  test("an error shows its code, subject, remedy and causes, and no stack when its code says enough", () => {
    const cause = new Error("connect ECONNREFUSED");
    const error = new ErserverError("ERS-201", "the source does not answer", {
      subject: "a@b:1/c",
      remedy: "Start it.",
      cause,
    });
    expect(fields((log) => log.error("offline", { err: error })).err).toMatchObject({
      type: "ErserverError",
      code: "ERS-201",
      message: "the source does not answer",
      subject: "a@b:1/c",
      remedy: "Start it.",
      cause: { message: "connect ECONNREFUSED" },
    });
    expect(fields((log) => log.error("offline", { err: error })).err).not.toHaveProperty("stack");
    expect(fields((log) => log.error("bug", { err: new Error("x") })).err).toHaveProperty("stack");
  });
});

describe("secrets and row values are left out", () => {
  test.each<[string, (log: Logger) => void]>([
    [
      "of a field named password",
      (log) => log.info("x", { password: "hunter2", nested: { sslpassword: "hunter2" } }),
    ],
    ["of a URL in the message", (log) => log.info("connecting to postgres://bob:hunter2@h/db")],
    ["of a keyword=value string", (log) => log.info("x", { conninfo: "host=h password='a hunter2' user=b" })],
    ["of a child's fields", (log) => log.child({ url: "postgres://bob:hunter2@h/db" }).info("x")],
    [
      "of an error's message and stack",
      (log) => log.info("x", { err: new Error("bad postgres://bob:hunter2@h/db") }),
    ],
    ["of bytes", (log) => log.info("x", { bytes: Buffer.from("hunter2") })],
    [
      "of a server error's detail, place and quoted value",
      (log) =>
        log.info("x", {
          err: new ServerError({
            severity: "ERROR",
            code: "22P02",
            message: 'invalid input syntax for type integer: "hunter2"',
            detail: "Key (id)=(hunter2)",
            where: "COPY t, line 1: hunter2",
          }),
        }),
    ],
    [
      "of a driver error",
      (log) =>
        log.info("x", {
          err: Object.assign(new Error("duplicate key"), { code: "23505", detail: "hunter2" }),
        }),
    ],
  ])("%s", (_, action) => {
    const [line] = record({}, action);
    expect(line).toBeDefined();
    expect(line).not.toContain("hunter2");
  });

  test("a server error keeps what names its cause", () => {
    const error = new ServerError({
      severity: "ERROR",
      code: "23505",
      message: "duplicate key",
      table: "t",
      constraint: "t_pkey",
    });
    expect(fields((log) => log.error("x", { err: error })).err).toMatchObject({
      code: "23505",
      table: "t",
      constraint: "t_pkey",
    });
  });
});

const human = (action: (log: Logger) => void) => record({ format: "human" }, action).join("");

describe("the human format", () => {
  test("is one readable line", () => {
    const text = human((log) =>
      log.child({ pipeline: "london" }).info("caught up", { rows: 12, table: "My Table" }),
    );
    expect(text).toMatch(/^\d\d:\d\d:\d\d\.\d{3} INFO {2}london: caught up rows=12 table="My Table"\n$/);
  });

  test("puts an error below it, its remedy last", () => {
    const error = new ErserverError("ERS-201", "no answer", { remedy: "Start it." });
    expect(human((log) => log.error("offline", { err: error }))).toMatch(
      /ERROR offline\n {4}ERS-201: no answer\n {4}Start it\.\n$/,
    );
  });
});
