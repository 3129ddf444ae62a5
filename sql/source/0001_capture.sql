-- What trigger capture keeps in a source database: which rows changed, by their keys, and how far each target is. Whoever writes
-- to a captured table needs no privilege here: the trigger functions run with the privileges of their owner.

-- Where this was made. A dump that is restored elsewhere brings it along, with transaction numbers that mean nothing there.
create table erserver.capture_origin (
  -- pg_control's system_identifier and the database's OID
  system text not null,
  database oid not null
);

create sequence erserver.captured_table_id as integer;

create table erserver.captured_table (
  id integer primary key,
  -- pg_class.oid: another table may come to have the name
  relation oid not null unique,
  schema_name text not null,
  table_name text not null,
  -- the columns that name a row; the log has them as k1, k2 and so on; without any there is no log
  key text[] not null,
  -- their numbers (pg_attribute.attnum), by which they are still the same when they are renamed
  attributes smallint[] not null,
  -- pg_class.oid of the relations that have the triggers: the table's own first, then those of its partitions
  relations oid[] not null,
  -- column mode: an UPDATE is recorded when it changes one of these or the key; null for all
  columns text[],
  -- asked for by itself: it stays when no target wants it
  registered boolean not null default false,
  -- what its log, functions and triggers were made from
  definition text not null,
  captured_at timestamptz not null default now()
);

-- A captured table whose rows all went, by TRUNCATE; of one without a key, which is replaced whole, every change.
create table erserver.replacement (
  xid bigint not null,
  captured_table integer not null references erserver.captured_table on delete cascade
);
create index on erserver.replacement (captured_table, xid);

-- How far each target is, told now and then, behind what the target itself has on record: what all have is removed from the logs.
create table erserver.consumer (
  pipeline text primary key,
  -- erserver.captured_table.id of the tables that it wants: one that is recorded anew has another number
  tables integer[] not null,
  -- all that it sees is on the target, or comes with its copies
  snapshot txid_snapshot not null,
  confirmed_at timestamptz not null default now()
);
