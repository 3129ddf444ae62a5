-- Targets that no network reaches, and what was prepared to be carried to them.

-- What the source and such a target know each other by; null for a target that a replicator serves.
alter table erserver.consumer add carrier uuid;
-- `sync` is then the number of the file that is known to be applied, and with it `snapshot`.

-- The files that have been prepared since the one that is known to be applied, and that one itself.
create table erserver.prepared_sync (
  pipeline text references erserver.consumer on delete cascade,
  -- never given twice to one target
  sync bigint,
  -- what the target shows once it has applied the file
  snapshot txid_snapshot not null,
  -- erserver.captured_table.id of the tables that it then has, and that have been wanted ever since
  tables integer[] not null,
  -- the file was written to its end, so that the next one may begin where it ends
  written boolean not null default false,
  prepared_at timestamptz not null default now(),
  primary key (pipeline, sync)
);
