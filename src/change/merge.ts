import { RowChange } from "./change.ts";
import { COLUMN_UNCHANGED, TupleReader } from "./tuple.ts";

const later = new TupleReader();
const earlier = new TupleReader();

/**
 * The later of two changes of one row, with the columns that its new row image lacks taken from the earlier one's. Both are of the
 * same relation.
 */
export function withColumnsOf(change: RowChange, before: RowChange): RowChange {
  if (!change.lacksColumns) return change;
  later.reset(change.bytes, change.newStart);
  earlier.reset(before.bytes, before.newStart);
  // An old image lies before the new one.
  const start = change.oldStart < 0 ? change.newStart : change.oldStart;
  const parts: Buffer[] = [change.bytes.subarray(start, later.position)];
  let lacksColumns = false;
  for (let index = 0; index < later.columns; index++) {
    const at = later.position;
    const instead = earlier.position;
    later.next();
    earlier.next();
    if (later.kind === COLUMN_UNCHANGED) {
      parts.push(before.bytes.subarray(instead, earlier.position));
      lacksColumns ||= earlier.kind === COLUMN_UNCHANGED;
    } else parts.push(change.bytes.subarray(at, later.position));
  }
  return new RowChange(
    change.kind,
    change.relation,
    Buffer.concat(parts),
    change.oldStart < 0 ? -1 : 0,
    change.oldIsKey,
    change.newStart - start,
    lacksColumns,
    change.size,
  );
}
