/** Type bytes of the messages that a client sends. https://www.postgresql.org/docs/current/protocol-message-formats.html */
export const BIND = 0x42;
export const CLOSE = 0x43;
export const COPY_DATA = 0x64;
const COPY_DONE = 0x63;
export const COPY_FAIL = 0x66;
const EXECUTE = 0x45;
export const PARSE = 0x50;
export const QUERY = 0x51;
const SYNC = 0x53;
const TERMINATE = 0x58;

/** Whole frames that never change. */
export const SYNC_FRAME = frame(SYNC);
export const TERMINATE_FRAME = frame(TERMINATE);
export const COPY_DONE_FRAME = frame(COPY_DONE);
/** Execute of the unnamed portal, all rows. */
export const EXECUTE_FRAME = frame(EXECUTE, 0, 0, 0, 0, 0);

function frame(type: number, ...payload: readonly number[]): Buffer {
  return Buffer.from([type, 0, 0, 0, 4 + payload.length, ...payload]);
}
