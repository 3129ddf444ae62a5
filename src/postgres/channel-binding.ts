import type { Duplex } from "node:stream";

/** What we need of pg's protocol connection, which @types/pg does not show. */
export interface PgConnection {
  /** The socket; another one from when TLS begins. */
  readonly stream: Duplex;
  on(event: string, listener: (message: { readonly mechanisms: readonly string[] }) => void): unknown;
}

/**
 * channel_binding=require, which pg does not know. Call this before `connect`, and what it returns afterwards. A server that does not
 * offer SCRAM-SHA-256-PLUS gets nothing that tells of the password, and one that lets us in without it is refused.
 */
export function demandChannelBinding(connection: PgConnection, overTls: boolean): () => void {
  let offered = false;
  let bound = false;
  const refuse = (what: string): void => {
    // pg answers the same message after us: to a socket that is destroyed it writes nothing.
    connection.stream.destroy(new Error(`channel binding is required, and ${what}`));
  };
  const refusePassword = (): void => refuse("the server asks for the password in another way");
  connection.on("authenticationCleartextPassword", refusePassword);
  connection.on("authenticationMD5Password", refusePassword);
  connection.on("authenticationSASL", ({ mechanisms }) => {
    // Where it is offered pg chooses it.
    offered = overTls && mechanisms.includes("SCRAM-SHA-256-PLUS");
    if (!offered) refuse("the server does not offer it");
  });
  // The server's signature: when it is wrong, `connect` rejects.
  connection.on("authenticationSASLFinal", () => {
    bound = offered;
  });
  return () => {
    if (!bound) throw new Error("channel binding is required, and the server lets us in without it");
  };
}
