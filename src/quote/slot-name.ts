import { createHash } from "node:crypto";

declare const slotNameBrand: unique symbol;

/** The name of a replication slot: lower-case letters, digits and underscores, at most 63. Safe in any SQL or replication command. */
export type SlotName = string & { readonly [slotNameBrand]: true };

const SLOT_NAME = /^[a-z0-9_]{1,63}$/;
const PREFIX = "erserver_";
const HASH_DIGITS = 8;

/** Throws RangeError when PostgreSQL would refuse the name (ReplicationSlotValidateName). */
export function parseSlotName(text: string): SlotName {
  if (!SLOT_NAME.test(text)) throw new RangeError(`not a slot name: ${JSON.stringify(text)}`);
  return text as SlotName;
}

/**
 * The slot of the pipeline to a target: `erserver_<target>`. A target name that a slot name cannot hold as it is gets its
 * other characters replaced and a hash of the whole name added, so that different targets never share a slot.
 */
export function slotNameFor(target: string): SlotName {
  const plain = PREFIX + target;
  if (target !== "" && SLOT_NAME.test(plain)) return plain as SlotName;
  const hash = createHash("sha256").update(target).digest("hex").slice(0, HASH_DIGITS);
  const room = 63 - HASH_DIGITS - 1;
  const readable = (PREFIX + target.toLowerCase().replace(/[^a-z0-9_]/g, "_")).slice(0, room);
  return parseSlotName(`${readable}_${hash}`);
}
