import { ReadableStream } from "node:stream/web";
import type { Decrypter, Encrypter } from "age-encryption";
import { ErserverError } from "../errors/erserver-error.ts";
import { damaged, notAKey, wrongIdentity } from "./carrier-errors.ts";

/** How an age file begins. https://age-encryption.org/v1 */
export const AGE_BEGINS = "age-encryption.org/";

/** @param recipient an age recipient, `age1…`. Throws ERS-607 for anything else. */
export async function encrypterFor(recipient: string): Promise<Encrypter> {
  // Loaded here: that takes longer than anything else at the start of a command, and few need it.
  const { Encrypter } = await import("age-encryption");
  const encrypter = new Encrypter();
  try {
    encrypter.addRecipient(recipient.trim());
  } catch {
    throw notAKey("recipient");
  }
  return encrypter;
}

/** @param identity `AGE-SECRET-KEY-1…`, or the text of a file by age-keygen, with comments. Throws ERS-607 for anything else. */
export async function decrypterFor(identity: string): Promise<Decrypter> {
  const { Decrypter } = await import("age-encryption");
  const decrypter = new Decrypter();
  const keys = identity.split("\n").flatMap((line) => (/^\s*(?:#|$)/.test(line) ? [] : [line.trim()]));
  try {
    for (const key of keys) decrypter.addIdentity(key);
  } catch {
    throw notAKey("identity");
  }
  if (keys.length === 0) throw notAKey("identity");
  return decrypter;
}

/** The bytes as one age file, 64 kB at a time. */
export async function* encrypted(
  bytes: AsyncIterable<Uint8Array>,
  encrypter: Encrypter,
): AsyncGenerator<Uint8Array> {
  yield* await encrypter.encrypt(pulled(bytes));
}

/** What the bytes of an age file hold. Throws ERS-606 or ERS-607, and what `bytes` throws. */
export async function* decrypted(
  bytes: AsyncIterable<Uint8Array>,
  decrypter: Decrypter,
): AsyncGenerator<Uint8Array> {
  try {
    yield* await decrypter.decrypt(pulled(bytes));
  } catch (error) {
    if (error instanceof ErserverError) throw error;
    const { message } = error as Error;
    throw message.startsWith("no identity matched") ? wrongIdentity() : damaged(`age: ${message}`, error);
  }
}

/** Takes nothing before it is asked for. */
function pulled(bytes: AsyncIterable<Uint8Array>): ReadableStream<Uint8Array> {
  return ReadableStream.from(bytes);
}
