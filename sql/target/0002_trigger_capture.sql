-- How changes are had from the source. With `trigger` no WAL position says where a target is, but a snapshot of the source, and the
-- positions are numbers of syncs.
alter table erserver.pipeline add capture text not null default 'wal' check (capture in ('wal', 'trigger'));

-- A comparison asks the applier to stand still where the source is by this exported snapshot; hold_lsn is then only to be answered.
alter table erserver.pipeline add hold_snapshot text;

-- Everything that it sees is on the target; of type txid_snapshot on the source.
alter table erserver.progress add snapshot text;

-- The snapshot that the copy of the table shows, until a sync has passed it.
alter table erserver.table_state add copy_snapshot text;
