import { expect, test } from "vitest";
import { freshDatabase, sharedCluster } from "../../test/support/clusters.ts";
import { expectEqualTables } from "../../test/support/compare.ts";
import { loadBooktown, loadBooktownSchema } from "./booktown.ts";

const server = sharedCluster("source");

test("every load gives the same rows, in a few tables of a few hundred", async () => {
  await using first = await freshDatabase(server);
  await using second = await freshDatabase(sharedCluster("target"));
  await Promise.all([loadBooktown(first.url), loadBooktown(second.url)]);
  await expectEqualTables(first.url, second.url);
  const [counted] = await first.query<{ rows: number }>(
    "select sum(reltuples)::int as rows from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace",
  );
  expect(counted?.rows).toBeGreaterThan(400);
  expect(counted?.rows).toBeLessThan(1000);
});

test("it has the people, the surnames, the owners and the doubled rows that its tests need", async () => {
  await using db = await freshDatabase(server);
  await loadBooktown(db.url);
  expect(await db.query("select lastname, firstname from customer where cust_id = 10")).toEqual([
    { lastname: "John Nathan", firstname: "Dr." },
  ]);
  expect(await db.query("select count(*)::int from customer where lastname = 'Gould'")).toEqual([
    { count: 3 },
  ]);
  expect(
    await db.query("select distinct count(*)::int as copies from book_backup group by book_backup"),
  ).toEqual([{ copies: 2 }]);
  expect(
    await db.query(
      `select relname::text as name, pg_get_userbyid(relowner)::text as owner from pg_class
       where relname in ('customer', 'inventory', 'invoice', 'shipped_orders') order by 1`,
    ),
  ).toEqual([
    { name: "customer", owner: "jennifer" },
    { name: "inventory", owner: "william" },
    { name: "invoice", owner: "jonathan" },
    { name: "shipped_orders", owner: "jonathan" },
  ]);
  expect(
    await db.query(
      "select rolname::text as name from pg_roles where rolname = 'mark' and rolcreaterole and rolcreatedb",
    ),
  ).toHaveLength(1);
});

test("a shipment takes a copy out of the stock, and none is shipped that is not there", async () => {
  await using db = await freshDatabase(server);
  await loadBooktown(db.url);
  const ship =
    "insert into shipped_orders (invoice_id, cust_id, isbn) select 1, 1, isbn from inventory where isbn = $1";
  const [book] = await db.query<{ isbn: string; stock: number }>(
    "select isbn, stock from inventory where stock > 0 limit 1",
  );
  await db.query(ship, [book?.isbn]);
  expect(await db.query("select stock from inventory where isbn = $1", [book?.isbn])).toEqual([
    { stock: (book?.stock ?? 0) - 1 },
  ]);
  await db.query("update inventory set stock = 0 where isbn = $1", [book?.isbn]);
  await expect(db.query(ship, [book?.isbn])).rejects.toThrow(/no copy/);
});

test("the definitions alone leave every table empty", async () => {
  await using db = await freshDatabase(server);
  await loadBooktownSchema(db.url);
  await loadBooktownSchema(db.url).then(
    () => expect.unreachable(),
    (error: unknown) => expect(String(error)).toMatch(/already exists/),
  );
  expect(await db.query("select from customer")).toEqual([]);
});
