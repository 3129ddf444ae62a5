import { type Change, RowChange, TruncateChange } from "../change/change.ts";
import type { Group, GroupMember } from "../change/group.ts";
import type { Lsn } from "../change/lsn.ts";
import type { Relation } from "../change/relation.ts";

/**
 * The group without the changes that came with their table's copy: those of transactions that commit before the copy's
 * snapshot. They may describe the table as it was before it was altered and copied.
 */
export function withoutCopied(group: Group, copyLsnOf: (relation: Relation) => Lsn): Group {
  const changes: Change[] = [];
  let index = 0;
  const members = group.members.map(({ transaction, end }): GroupMember => {
    for (; index < end; index++) {
      const left = rest(
        group.changes[index] as Change,
        (relation) => transaction.commitLsn >= copyLsnOf(relation),
      );
      if (left !== undefined) changes.push(left);
    }
    return { transaction, end: changes.length };
  });
  return { ...group, changes, members };
}

function rest(change: Change, isNew: (relation: Relation) => boolean): Change | undefined {
  if (change instanceof RowChange) return isNew(change.relation) ? change : undefined;
  const relations = change.relations.filter(isNew);
  if (relations.length === change.relations.length) return change;
  if (relations.length === 0) return undefined;
  const { cascade, restartIdentity, size, asDelete } = change;
  return new TruncateChange(relations, cascade, restartIdentity, size, asDelete);
}
