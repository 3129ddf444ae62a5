-- State of the pipelines that end in this database. Progress commits together with the rows it stands for.

create table erserver.pipeline (
  name text primary key,
  -- pg_control's system_identifier and the database of the source that this target was filled from
  source_system text not null,
  source_database text not null,
  slot text not null,
  state text not null default 'stopped',
  state_since timestamptz not null default now(),
  -- when a replicator last recorded a state: one that tries again does so at every attempt
  seen_at timestamptz not null default now(),
  -- {code, message, remedy, subject, side} of the last stop or outage
  error jsonb,
  -- commit time on the source of the oldest transaction that is not applied; null when the target is close behind
  behind_since timestamptz,
  desired text not null default 'running' check (desired in ('running', 'paused')),
  -- a comparison asks the applier to stand still at this position until hold_until
  hold_lsn pg_lsn,
  -- the applier's answer: everything before it is applied, nothing behind it
  held_lsn pg_lsn,
  hold_until timestamptz,
  created_at timestamptz not null default now()
);

-- One row a pipeline, updated by each group: room for HOT updates, so that it stays one page.
create table erserver.progress (
  pipeline text primary key references erserver.pipeline on delete cascade,
  -- every source transaction that ends at or before it is applied
  lsn pg_lsn not null,
  -- commit time of the newest applied source transaction
  commit_time timestamptz,
  transactions bigint not null default 0,
  rows bigint not null default 0,
  -- groups that had to be replayed row by row, and conflicts met there
  replays bigint not null default 0,
  conflicts bigint not null default 0,
  applied_at timestamptz
) with (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- States as in pg_subscription_rel, by their long names: init, data_sync, finished_copy. (Ready is whose copy_lsn progress has passed.)
create table erserver.table_state (
  pipeline text not null references erserver.pipeline on delete cascade,
  source_schema text not null,
  source_table text not null,
  -- pg_class.oid on the source: another table may come to have the name
  source_oid oid not null,
  state text not null default 'init' check (state in ('init', 'data_sync', 'finished_copy')),
  -- whoever copies it now: a copy commits only while this is still its own token
  copier uuid,
  -- changes of transactions with a smaller commit position are in the copy already
  copy_lsn pg_lsn,
  rows_copied bigint,
  -- what the configuration selects of it: its column list, sorted, and row filter in the source's words; null for all
  columns text[],
  row_filter text,
  state_since timestamptz not null default now(),
  primary key (pipeline, source_schema, source_table)
);

create table erserver.conflict (
  id bigint generated always as identity primary key,
  pipeline text not null references erserver.pipeline on delete cascade,
  detected_at timestamptz not null default now(),
  commit_lsn pg_lsn not null,
  commit_time timestamptz not null,
  xid bigint not null,
  schema_name text not null,
  table_name text not null,
  kind text not null check (kind in ('insert_exists', 'update_missing', 'delete_missing')),
  key jsonb,
  resolution text not null
);
