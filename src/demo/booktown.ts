import { Client } from "pg";
import { BOOKTOWN_DATA } from "./booktown-data.ts";
import { BOOKTOWN_SCHEMA } from "./booktown-schema.ts";

/** Fills an empty database with booktown: definitions, roles and rows. All or nothing; needs a superuser. */
export async function loadBooktown(url: string): Promise<void> {
  await load(url, BOOKTOWN_SCHEMA + BOOKTOWN_DATA);
}

/** The definitions and roles alone, as a target has them before its first copy. */
export async function loadBooktownSchema(url: string): Promise<void> {
  await load(url, BOOKTOWN_SCHEMA);
}

async function load(url: string, sql: string): Promise<void> {
  const client = new Client({ connectionString: url, application_name: "booktown" });
  await client.connect();
  try {
    // Several statements in one message are one transaction. Money is read in the locale's format: pin it.
    await client.query(`set local lc_monetary = 'C'; set local search_path = public; ${sql}`);
  } finally {
    await client.end();
  }
}
