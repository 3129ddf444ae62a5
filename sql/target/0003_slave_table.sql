-- Tables that somebody has registered here, by SlaveAddTable: Replicate brings those that are registered on the master too.
create table erserver.slave_table (
  schema_name text not null,
  table_name text not null,
  -- as they were registered, and must be on the master; null for all
  columns text[],
  registered_at timestamptz not null default now(),
  primary key (schema_name, table_name)
);

-- Its tables are those that are registered on both sides.
alter table erserver.pipeline add registered_only boolean not null default false;
