-- Set where changes come by files that are carried here: what the source and this target know each other by. The position in
-- erserver.progress is then the number of the last file.
alter table erserver.pipeline add carrier uuid;
