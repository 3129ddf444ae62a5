const COLORS: Readonly<Record<string, string>> = {
  debug: "\u001b[2m",
  warn: "\u001b[33m",
  error: "\u001b[31m",
};
const RESET = "\u001b[0m";

/** Turns a JSON log line into one for a terminal: local time, level, pipeline, message, the other fields as key=value. */
export function humanFormat(line: string, color: boolean): string {
  const { time, level, pipeline, msg, err, ...fields } = JSON.parse(line) as Record<string, unknown>;
  const words = [clock(new Date(String(time))), String(level).toUpperCase().padEnd(5)];
  if (pipeline !== undefined) words.push(`${show(pipeline)}:`);
  words.push(typeof msg === "string" ? msg : "");
  for (const [key, value] of Object.entries(fields)) words.push(`${key}=${show(value)}`);
  const text = words.join(" ") + errorLines(err);
  const start = color ? (COLORS[String(level)] ?? "") : "";
  return `${start}${text}${start === "" ? "" : RESET}\n`;
}

function clock(time: Date): string {
  const parts = [time.getHours(), time.getMinutes(), time.getSeconds()].map((part) =>
    String(part).padStart(2, "0"),
  );
  return `${parts.join(":")}.${String(time.getMilliseconds()).padStart(3, "0")}`;
}

function show(value: unknown): string {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return /^[^\s"=]+$/.test(text) ? text : JSON.stringify(value);
}

/** The error below the line: its code and message, each cause, then the remedy, which is what the reader needs last. */
function errorLines(error: unknown): string {
  if (typeof error !== "object" || error === null) return error === undefined ? "" : ` err=${show(error)}`;
  const { code, message, remedy, stack, cause } = error as Record<string, unknown>;
  const lines = [typeof stack === "string" ? stack : headline(code, message)];
  if (typeof remedy === "string") lines.push(remedy);
  return (
    lines.map((text) => `\n    ${text.replaceAll("\n", "\n    ")}`).join("") +
    (cause === undefined ? "" : errorLines(cause))
  );
}

/** Messages of the operating system begin with their code already. */
function headline(code: unknown, message: unknown): string {
  const text = typeof message === "string" ? message : "";
  return typeof code === "string" && !text.startsWith(code) ? `${code}: ${text}` : text;
}
