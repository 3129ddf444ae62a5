import { ErserverError } from "../errors/erserver-error.ts";

export function notACarrier(): ErserverError {
  return new ErserverError("ERS-604", "the input is not a carrier file", {
    remedy: "Give it a file that PrepareSnapshot has written, as it was written.",
  });
}

export function empty(): ErserverError {
  return new ErserverError("ERS-604", "the input is empty: no carrier file", {
    remedy:
      "Nothing to do if PrepareSnapshot said that nothing had changed; else bring the file over once more.",
  });
}

export function newerFormat(version: string, known: number): ErserverError {
  return new ErserverError(
    "ERS-605",
    `the carrier file is of format ${version}, and this erserver knows none above ${known}`,
    {
      subject: `format ${version}`,
      remedy: "Upgrade erserver on this machine to the version of the source's.",
    },
  );
}

/** @param why what shows it, without a value of a row. */
export function damaged(why: string, cause?: unknown): ErserverError {
  return new ErserverError("ERS-606", `the carrier file was cut short or altered on its way: ${why}`, {
    remedy: "Nothing of it was applied: bring it over once more, or prepare a new one on the source.",
    cause,
  });
}

export function noIdentity(): ErserverError {
  return new ErserverError(
    "ERS-607",
    "the carrier file is encrypted, and no identity was given to decrypt it by",
    {
      remedy: "Give the age identity (AGE-SECRET-KEY-1…) whose recipient the file was prepared for.",
    },
  );
}

export function wrongIdentity(): ErserverError {
  return new ErserverError(
    "ERS-607",
    "the carrier file is encrypted to another key than that of the identity given",
    {
      remedy:
        "Give the age identity whose recipient the file was prepared for, or prepare it for this one's.",
    },
  );
}

/** Without a cause, which might show part of a secret. */
export function notAKey(kind: "recipient" | "identity"): ErserverError {
  const form = kind === "recipient" ? "age1…" : "AGE-SECRET-KEY-1…";
  return new ErserverError("ERS-607", `the ${kind} is not an age key`, {
    remedy: `Give one as age-keygen makes it: ${form}`,
  });
}

export function unreadable(cause: unknown): ErserverError {
  return new ErserverError("ERS-612", `the carrier file cannot be read: ${(cause as Error).message}`, {
    remedy: "Nothing of it was applied: see to the medium or the pipe that it comes by, and apply it again.",
    cause,
  });
}

export function unwritable(cause: unknown): ErserverError {
  return new ErserverError("ERS-612", `the carrier file cannot be written: ${(cause as Error).message}`, {
    remedy: "See to the disk or pipe that it goes to, throw away what there is of it, and prepare it again.",
    cause,
  });
}
