-- A target that wants no other tables than those that are registered here (captured_table.registered): without the registration it
-- does not want the table any more.
alter table erserver.consumer add registered_only boolean not null default false;

-- As its configuration calls it; `pipeline` is made of it.
alter table erserver.consumer add name text;

-- Number of the last sync that is on the target, durably; null before the first.
alter table erserver.consumer add sync bigint;
