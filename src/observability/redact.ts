const REDACTED = "[redacted]";

/** Removes passwords from text that may quote a connection string: the last line of defence behind `Secret`. */
export function redactText(text: string): string {
  return text
    .replace(/(\b[a-z][a-z0-9+.-]*:\/\/[^\s:/@]*:)[^\s@]*@/gi, `$1${REDACTED}@`)
    .replace(/\b((?:ssl)?password\s*=\s*)(?:'(?:[^'\\]|\\.)*'|[^\s&]+)/gi, `$1${REDACTED}`);
}

const SECRET_KEY = /^(?:ssl)?pass(?:word|phrase)?$|secret|token/i;

/** Copies log fields with secrets and binary data taken out. */
export function redactFields(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).map(([key, value]) => [key, redactValue(key, value, 0)]));
}

/** Deeper than this, an object is a mistake in a log line. */
const MAX_DEPTH = 4;

function redactValue(key: string, value: unknown, depth: number): unknown {
  if (SECRET_KEY.test(key) && value !== undefined && value !== null) return REDACTED;
  if (typeof value === "string") return redactText(value);
  if (typeof value === "bigint") return value.toString();
  if (value instanceof Error) return describeError(value);
  if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`;
  if (typeof value !== "object" || value === null) return value;
  if (depth >= MAX_DEPTH) return "[…]";
  if ("toJSON" in value && typeof value.toJSON === "function")
    return redactValue(key, value.toJSON(), depth + 1);
  if (Array.isArray(value)) return value.map((item) => redactValue(key, item, depth + 1));
  return Object.fromEntries(
    Object.entries(value).map(([name, item]) => [name, redactValue(name, item, depth + 1)]),
  );
}

/** Fields of a server's error that name things and hold no row values: `detail`, `where`, `hint` and `internalQuery` may. */
const SAFE_FIELDS = [
  "code",
  "subject",
  "remedy",
  "severity",
  "schema",
  "table",
  "column",
  "constraint",
  "routine",
  "syscall",
] as const;

/** An error as a log line shows it. The stack is kept only where no code says what happened. */
function describeError(error: Error, depth = 0): Record<string, unknown> {
  const fields = "fields" in error && typeof error.fields === "object" ? (error.fields as object) : {};
  const source: Record<string, unknown> = { ...fields, ...pick(error, SAFE_FIELDS) };
  const { code } = source;
  const expected = typeof code === "string" && code !== "ERS-901";
  return {
    type: error.name,
    message: withoutValues(redactText(error.message), code),
    ...pickStrings(source),
    ...(expected || error.stack === undefined ? {} : { stack: redactText(error.stack) }),
    ...(error.cause instanceof Error && depth < MAX_DEPTH
      ? { cause: describeError(error.cause, depth + 1) }
      : {}),
  };
}

/** SQLSTATE class 22, data exceptions, quotes the value behind a colon: `invalid input syntax for type integer: "x"`. */
export function withoutValues(message: string, code: unknown): string {
  return typeof code === "string" && /^22[0-9A-Z]{3}$/.test(code)
    ? message.replace(/"[^]*$/, "[value]")
    : message;
}

function pick(error: Error, keys: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(
    keys.flatMap((key) => (key in error ? [[key, (error as unknown as Record<string, unknown>)[key]]] : [])),
  );
}

function pickStrings(source: Readonly<Record<string, unknown>>): Record<string, string> {
  return Object.fromEntries(
    SAFE_FIELDS.flatMap((key) => {
      const value = source[key];
      return typeof value === "string" ? [[key, redactText(value)]] : [];
    }),
  );
}
