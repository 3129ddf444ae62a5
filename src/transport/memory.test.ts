import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Change, RowChange } from "../change/change.ts";
import type { Delivery, Group } from "../change/group.ts";
import type { Lsn } from "../change/lsn.ts";
import type { Relation } from "../change/relation.ts";
import type { Transaction } from "../change/transaction.ts";
import { MemoryTransport, type MemoryTransportOptions } from "./memory.ts";

const relation: Relation = { id: 1, schema: "public", name: "t", replicaIdentity: "default", columns: [] };
/** What a change counts for besides its bytes. */
const OVERHEAD = 100;

const change = (size: number): Change =>
  new RowChange("insert", relation, Buffer.alloc(0), -1, false, 0, false, size);

function transaction(commit: number): Transaction {
  return { xid: commit, commitLsn: BigInt(commit) as Lsn, endLsn: 0n as Lsn, commitTime: 0 };
}

const lsn = (position: number): Lsn => BigInt(position) as Lsn;

function transport(options: Partial<MemoryTransportOptions> = {}): MemoryTransport {
  return new MemoryTransport({
    capacityBytes: 100_000,
    groupTransactions: 10,
    groupBytes: 10_000,
    ...options,
  });
}

/** The transactions of the next group, whenever it comes. */
async function groupOf(carrier: MemoryTransport): Promise<number[]> {
  for (;;) {
    const delivery = await carrier.take(10_000);
    if (delivery?.kind === "group") return delivery.group.members.map(({ transaction: { xid } }) => xid);
  }
}

/** A whole transaction with changes of these sizes. */
function send(to: MemoryTransport, commit: number, sizes: readonly number[], commitTime = 0): Change[] {
  const one = { ...transaction(commit), commitTime };
  const changes = sizes.map(change);
  to.begin(one);
  for (const each of changes) to.change(each);
  one.endLsn = lsn(commit + 1);
  to.commit(one);
  return changes;
}

function shape(delivery: Delivery | undefined): unknown {
  if (delivery?.kind !== "group") return delivery;
  const { members, begins, ends } = delivery.group;
  return { members: members.map((member) => [member.transaction.xid, member.end]), begins, ends };
}

async function takeGroup(from: MemoryTransport, hold?: Lsn): Promise<Group> {
  const delivery = await from.take(0, hold);
  if (delivery?.kind !== "group") throw new Error(`not a group: ${delivery?.kind}`);
  return delivery.group;
}

describe("groups", () => {
  test("hold all whole transactions that have arrived, until they have enough transactions or bytes", async () => {
    const carrier = transport({ groupTransactions: 3, groupBytes: 1000 });
    for (const commit of [10, 20, 30, 40]) send(carrier, commit, [1, 1]);
    send(carrier, 50, [500]);
    send(carrier, 60, [1]);
    expect(shape(await carrier.take(0))).toEqual({
      members: [
        [10, 2],
        [20, 4],
        [30, 6],
      ],
      begins: true,
      ends: true,
    });
    expect(shape(await carrier.take(0))).toMatchObject({
      members: [
        [40, 2],
        [50, 3],
        [60, 4],
      ],
    });
    expect(await carrier.take(0)).toBeUndefined();
  });

  test("a transaction that is not complete waits, and an empty one is only news of a position", async () => {
    const carrier = transport();
    const open = transaction(10);
    carrier.begin(open);
    carrier.change(change(1));
    carrier.idle(lsn(5));
    expect(await carrier.take(0)).toBeUndefined();
    open.endLsn = lsn(11);
    carrier.commit(open);
    expect(shape(await carrier.take(0))).toMatchObject({ members: [[10, 1]] });
    send(carrier, 20, []);
    expect(await carrier.take(0)).toEqual({ kind: "idle", lsn: 21n, commitTime: 0 });
    expect(await carrier.take(0)).toBeUndefined();
    carrier.idle(lsn(40));
    carrier.idle(lsn(30));
    expect(await carrier.take(0)).toEqual({ kind: "idle", lsn: 40n });
  });

  test("a transaction that outgrows a group comes in slices, behind what was complete before it", async () => {
    const carrier = transport({ groupBytes: 1000 });
    send(carrier, 10, [1]);
    const large = transaction(20);
    carrier.begin(large);
    for (let i = 0; i < 5; i++) carrier.change(change(400));
    expect(shape(await carrier.take(0))).toEqual({ members: [[10, 1]], begins: true, ends: true });
    expect(carrier.midTransaction).toBe(false);
    expect(shape(await carrier.take(0))).toEqual({ members: [[20, 2]], begins: true, ends: false });
    expect(shape(await carrier.take(0))).toEqual({ members: [[20, 2]], begins: false, ends: false });
    expect(carrier.midTransaction).toBe(true);
    expect(await carrier.take(0)).toBeUndefined();
    large.endLsn = lsn(21);
    carrier.commit(large);
    send(carrier, 30, [1]);
    expect(shape(await carrier.take(0))).toEqual({ members: [[20, 1]], begins: false, ends: true });
    expect(carrier.midTransaction).toBe(false);
    expect(shape(await carrier.take(0))).toMatchObject({ members: [[30, 1]], begins: true });
  });

  test("what is open is forgotten, with slices that nobody has taken, and may come once more", async () => {
    const carrier = transport({ groupBytes: 1000 });
    send(carrier, 10, [1]);
    carrier.begin(transaction(20));
    for (let i = 0; i < 5; i++) carrier.change(change(400));
    expect(carrier.completeLsn).toBe(lsn(11));
    expect(carrier.cut()).toBe(true);
    expect(carrier.heldBytes).toBe(1 + OVERHEAD);
    expect(shape(await carrier.take(0))).toEqual({ members: [[10, 1]], begins: true, ends: true });
    send(carrier, 20, [400, 400, 400]);
    expect(shape(await carrier.take(0))).toMatchObject({ members: [[20, 2]], begins: true, ends: false });
  });

  test("of what has been taken nothing can be forgotten", async () => {
    const carrier = transport({ groupBytes: 1000 });
    carrier.begin(transaction(20));
    for (let i = 0; i < 3; i++) carrier.change(change(400));
    expect(shape(await carrier.take(0))).toMatchObject({ begins: true, ends: false });
    const held = carrier.heldBytes;
    expect(carrier.mayCut).toBe(false);
    expect(carrier.cut()).toBe(false);
    expect(carrier.heldBytes).toBe(held);
  });

  test("a large transaction that is complete is not in the way, however much of it has been taken", async () => {
    const carrier = transport({ groupBytes: 1000 });
    send(carrier, 10, [400, 400, 400, 400, 400]);
    expect(shape(await carrier.take(0))).toEqual({ members: [[10, 2]], begins: true, ends: false });
    carrier.begin(transaction(20));
    carrier.change(change(400));
    expect(carrier.midTransaction).toBe(true);
    expect(carrier.cut()).toBe(true);
    expect(shape(await carrier.take(0))).toEqual({ members: [[10, 2]], begins: false, ends: false });
    expect(shape(await carrier.take(0))).toEqual({ members: [[10, 1]], begins: false, ends: true });
    expect(await carrier.take(0)).toBeUndefined();
    carrier.begin(transaction(20));
    for (let i = 0; i < 3; i++) carrier.change(change(400));
    expect(shape(await carrier.take(0))).toMatchObject({ members: [[20, 2]], begins: true, ends: false });
    expect(carrier.cut()).toBe(false);
  });

  test("forgetting what is open lets a capture that waits go on", async () => {
    const carrier = transport({ capacityBytes: 1000, groupBytes: 1000 });
    carrier.begin(transaction(20));
    for (let i = 0; i < 5; i++) carrier.change(change(400));
    expect(carrier.full).toBe(true);
    const room = carrier.whenRoom();
    carrier.cut();
    await room;
    expect(carrier.full).toBe(false);
  });

  test("ahead only what is complete is taken, as soon as it is", async () => {
    const carrier = transport({ groupTransactions: 2 });
    send(carrier, 10, [1]);
    expect(await carrier.takeAhead(Promise.resolve())).toBeUndefined();
    const ahead = carrier.takeAhead(new Promise(() => {}));
    send(carrier, 20, [1]);
    expect((await ahead)?.members.map(({ transaction: { xid } }) => xid)).toEqual([10, 20]);
    send(carrier, 30, [1]);
    expect(await carrier.takeAhead(Promise.reject(new Error("failed")))).toBeUndefined();
    expect(shape(await carrier.take(0))).toMatchObject({ members: [[30, 1]] });
  });

  test("ahead what still grows is taken as well once it has grown for its time, from its first transaction on", async () => {
    const carrier = transport({});
    const never = new Promise(() => {});
    const ahead = carrier.takeAhead(never, 30);
    send(carrier, 10, [1]);
    send(carrier, 20, [1]);
    expect((await ahead)?.members.map(({ transaction: { xid } }) => xid)).toEqual([10, 20]);
    expect(await carrier.takeAhead(Promise.resolve(), 30)).toBeUndefined();
    send(carrier, 30, [1]);
    expect(await carrier.takeAhead(Promise.resolve(), 3_600_000)).toBeUndefined();
    expect((await carrier.takeAhead(never, 0))?.members).toHaveLength(1);
  });

  test("a group gathers for its time, and no longer position passes it meanwhile", async () => {
    const carrier = transport({ groupDelayMs: 60 });
    send(carrier, 10, [1]);
    carrier.idle(lsn(15));
    expect(await carrier.take(0)).toBeUndefined();
    send(carrier, 20, [1]);
    expect(await groupOf(carrier)).toEqual([10, 20]);
    expect(await carrier.take(0)).toMatchObject({ kind: "idle" });
  });

  test("whoever holds does not wait for a group to gather", async () => {
    const carrier = transport({ groupDelayMs: 3_600_000 });
    send(carrier, 10, [1]);
    send(carrier, 20, [1]);
    expect(shape(await carrier.take(0, lsn(20)))).toMatchObject({ members: [[10, 1]] });
    expect(await carrier.take(0, lsn(20))).toEqual({ kind: "held", lsn: 20n });
  });

  test("a transaction is held back until its commit is old enough, and those behind it", async () => {
    const carrier = transport({ delayMs: 3_600_000 });
    const hourAgo = (Date.now() - 3_600_000) * 1000;
    send(carrier, 10, [1], hourAgo - 1_000_000);
    send(carrier, 20, [1], hourAgo + 60_000_000);
    send(carrier, 30, [1], hourAgo + 60_000_000);
    carrier.idle(lsn(40));
    expect(shape(await carrier.take(0))).toMatchObject({ members: [[10, 1]] });
    expect(await carrier.take(0)).toBeUndefined();
    expect(await carrier.take(0, lsn(30))).toBeUndefined();
    expect(await carrier.takeAhead(Promise.resolve())).toBeUndefined();
    expect(await carrier.take(0, lsn(20))).toEqual({ kind: "held", lsn: 20n });
  });

  test("what is held back comes when it is due, without news", async () => {
    const carrier = transport({ delayMs: 80 });
    send(carrier, 10, [1], Date.now() * 1000);
    expect(await carrier.take(0)).toBeUndefined();
    expect(await groupOf(carrier)).toEqual([10]);
  });

  test("a group may be wished larger than the capacity: an open transaction never fills it for good", async () => {
    const carrier = transport({ capacityBytes: 1000, groupBytes: 1_000_000 });
    carrier.begin(transaction(10));
    while (!carrier.full) carrier.change(change(150));
    carrier.release(await takeGroup(carrier));
    expect(carrier.full).toBe(false);
  });
});

describe("back-pressure", () => {
  test("full until enough was released, and everybody who waits for room is told", async () => {
    const carrier = transport({ capacityBytes: 4000, groupTransactions: 1 });
    for (const commit of [10, 20, 30, 40]) send(carrier, commit, [800]);
    expect(carrier.full).toBe(false);
    await carrier.whenRoom();
    send(carrier, 50, [800]);
    expect(carrier.full).toBe(true);
    expect(carrier.heldBytes).toBe(5 * (800 + OVERHEAD));
    let told = 0;
    const waiting = [carrier.whenRoom(), carrier.whenRoom()].map((room) => room.then(() => told++));
    const first = await takeGroup(carrier);
    // Taken is not yet applied.
    expect(carrier.full).toBe(true);
    expect(told).toBe(0);
    carrier.release(first);
    await Promise.all(waiting);
    for (let left = 4; left > 0; left--) {
      expect(carrier.empty).toBe(false);
      carrier.release(await takeGroup(carrier));
    }
    expect(carrier.empty).toBe(true);
  });

  test("a take that waits is ended by news and by wake", async () => {
    const carrier = transport();
    const waiting = carrier.take(60_000);
    send(carrier, 10, [1]);
    expect(shape(await waiting)).toMatchObject({ members: [[10, 1]] });
    const again = carrier.take(60_000);
    carrier.wake();
    expect(await again).toBeUndefined();
  });

  test("a failure comes behind what is complete", async () => {
    const carrier = transport();
    send(carrier, 10, [1]);
    carrier.fail(new Error("first"));
    carrier.fail(new Error("second"));
    expect(shape(await carrier.take(0))).toMatchObject({ members: [[10, 1]] });
    await expect(carrier.take(0)).rejects.toThrow("first");
  });
});

describe("hold and until", () => {
  test("a hold parts a group, says once that everything before it is out, and lets the rest go afterwards", async () => {
    const carrier = transport();
    for (const commit of [10, 20, 30]) send(carrier, commit, [1, 1]);
    expect(shape(await carrier.take(0, lsn(20)))).toEqual({ members: [[10, 2]], begins: true, ends: true });
    expect(await carrier.take(0, lsn(20))).toEqual({ kind: "held", lsn: 20n });
    expect(await carrier.take(0, lsn(20))).toBeUndefined();
    const rest = await takeGroup(carrier);
    expect(rest.members.map(({ end }) => end)).toEqual([2, 4]);
    expect(rest.size).toBe(4 * (1 + OVERHEAD));
  });

  test("a hold at the position of an earlier one, which was let go, is told again", async () => {
    const carrier = transport();
    carrier.idle(lsn(20));
    for (let round = 0; round < 2; round++) {
      expect(await carrier.take(0, lsn(20))).toEqual({ kind: "held", lsn: 20n });
      expect(await carrier.take(0, lsn(20))).toBeUndefined();
      await carrier.take(0);
    }
  });

  test("a failure is told to whoever holds or does not take", async () => {
    const carrier = transport();
    carrier.idle(lsn(20));
    expect((await carrier.take(0, lsn(20)))?.kind).toBe("held");
    carrier.throwIfFailed();
    carrier.fail(new Error("gone"));
    await expect(carrier.take(0, lsn(20))).rejects.toThrow("gone");
    expect(() => carrier.throwIfFailed()).toThrow("gone");
  });

  test("a hold is reached only when the source has nothing before it, or has begun what is behind it", async () => {
    const carrier = transport();
    expect(await carrier.take(0, lsn(20))).toBeUndefined();
    carrier.idle(lsn(19));
    expect(shape(await carrier.take(0, lsn(20)))).toEqual({ kind: "idle", lsn: 19n });
    carrier.begin(transaction(25));
    expect(await carrier.take(0, lsn(20))).toEqual({ kind: "held", lsn: 20n });
  });

  test("a hold that comes in the middle of a transaction keeps its further slices back", async () => {
    const carrier = transport({ groupBytes: 500 });
    const large = transaction(30);
    carrier.begin(large);
    for (let i = 0; i < 3; i++) carrier.change(change(450));
    expect(shape(await carrier.take(0))).toMatchObject({ begins: true, ends: false });
    expect(await carrier.take(0, lsn(20))).toEqual({ kind: "held", lsn: 20n });
    expect(await carrier.take(0, lsn(20))).toBeUndefined();
    expect(shape(await carrier.take(0, lsn(31)))).toMatchObject({ begins: false, ends: false });
  });

  test("nothing that commits at untilLsn or behind is delivered, and the end is told for ever", async () => {
    const carrier = transport({ untilLsn: lsn(20) });
    send(carrier, 10, [1]);
    send(carrier, 20, [1]);
    send(carrier, 30, [1]);
    expect(shape(await carrier.take(0))).toMatchObject({ members: [[10, 1]] });
    expect(await carrier.take(0)).toEqual({ kind: "end", lsn: 20n });
    expect(await carrier.take(0)).toEqual({ kind: "end", lsn: 20n });
    const idle = transport({ untilLsn: lsn(20) });
    idle.idle(lsn(19));
    expect(await idle.take(0)).toEqual({ kind: "idle", lsn: 19n });
    idle.idle(lsn(20));
    expect(await idle.take(0)).toEqual({ kind: "end", lsn: 20n });
  });
});

const arrivals = fc.array(
  fc.record({
    sizes: fc.array(fc.integer({ min: 0, max: 600 }), { maxLength: 8 }),
    /** How many deliveries are tried after each change, and after the commit. */
    takes: fc.array(fc.integer({ min: 0, max: 2 }), { maxLength: 9 }),
    idle: fc.boolean(),
    hold: fc.option(fc.integer({ min: 0, max: 400 })),
    release: fc.boolean(),
  }),
  { maxLength: 30 },
);

test("whatever the arrivals, the deliveries are the transactions in order and whole, and holds and untilLsn are kept", async () => {
  await fc.assert(
    fc.asyncProperty(
      arrivals,
      fc.record({
        groupTransactions: fc.integer({ min: 1, max: 5 }),
        groupBytes: fc.integer({ min: 100, max: 2000 }),
        capacityBytes: fc.integer({ min: 100, max: 3000 }),
      }),
      fc.option(fc.integer({ min: 0, max: 400 })),
      async (plan, bounds, until) => {
        const untilLsn = until === null ? undefined : lsn(until);
        const carrier = transport({ ...bounds, untilLsn });
        const expected = new Map<number, Change[]>();
        const delivered = new Map<number, Change[]>();
        const order: number[] = [];
        const committed = new Set<number>();
        const sent = new Set<number>();
        let hold: Lsn | undefined;
        let kept: Group[] = [];
        let idleAt = -1n;

        const check = (delivery: Delivery): void => {
          if (delivery.kind === "idle") {
            // Nothing before it is still to come.
            for (const commit of sent)
              if (BigInt(commit) < delivery.lsn) expect(committed.has(commit)).toBe(true);
            expect(delivery.lsn > idleAt).toBe(true);
            idleAt = delivery.lsn;
            return;
          }
          if (delivery.kind === "held") {
            expect(delivery.lsn).toBe(hold);
            for (const commit of sent)
              if (BigInt(commit) < delivery.lsn) expect(committed.has(commit)).toBe(true);
            return;
          }
          if (delivery.kind === "end") return;
          const { group } = delivery;
          kept.push(group);
          let index = 0;
          for (const { transaction: one, end } of group.members) {
            if (hold !== undefined) expect(one.commitLsn < hold).toBe(true);
            if (untilLsn !== undefined) expect(one.commitLsn < untilLsn).toBe(true);
            if (group.begins) {
              order.push(one.xid);
              delivered.set(one.xid, []);
            } else expect(order.at(-1)).toBe(one.xid);
            delivered.get(one.xid)!.push(...group.changes.slice(index, end));
            index = end;
            if (group.ends) {
              committed.add(one.xid);
              expect(one.endLsn).toBe(one.commitLsn + 1n);
            }
          }
          expect(index).toBe(group.changes.length);
          expect(group.size).toBe(group.changes.reduce((sum, each) => sum + each.size + OVERHEAD, 0));
          if (group.begins && group.ends)
            expect(group.members.length).toBeLessThanOrEqual(bounds.groupTransactions);
          else expect(group.members).toHaveLength(1);
        };
        const take = async (times: number): Promise<void> => {
          for (let i = 0; i < times; i++) {
            const waiting = carrier.take(60_000, hold);
            carrier.wake();
            const delivery = await waiting;
            if (delivery !== undefined) check(delivery);
          }
        };

        let commit = 0;
        for (const { sizes, takes, idle, hold: holdAt, release } of plan) {
          commit += 10;
          const one = transaction(commit);
          hold = holdAt === null ? undefined : lsn(holdAt);
          carrier.begin(one);
          const changes = sizes.map(change);
          if (sizes.length > 0 && (untilLsn === undefined || one.commitLsn < untilLsn)) {
            expected.set(commit, changes);
            sent.add(commit);
          }
          for (const [at, each] of changes.entries()) {
            carrier.change(each);
            await take(takes[at] ?? 0);
          }
          one.endLsn = lsn(commit + 1);
          carrier.commit(one);
          await take(takes.at(-1) ?? 0);
          if (idle) carrier.idle(lsn(commit + 5));
          if (release) for (const group of kept.splice(0)) carrier.release(group);
        }
        hold = undefined;
        for (let rounds = 0; rounds < 1000; rounds++) {
          const waiting = carrier.take(60_000, hold);
          carrier.wake();
          const delivery = await waiting;
          if (delivery === undefined || delivery.kind === "end") break;
          check(delivery);
        }
        expect(order).toEqual([...expected.keys()]);
        expect([...delivered.values()]).toEqual([...expected.values()]);
        for (const group of kept) carrier.release(group);
        kept = [];
        expect(carrier.empty).toBe(true);
      },
    ),
    { numRuns: 200 },
  );
});

describe("a transaction in progress", () => {
  /** A block of it, with changes of these sizes. */
  function block(to: MemoryTransport, xid: number, sizes: readonly number[]): void {
    to.streamStart(xid);
    for (const size of sizes) to.change(change(size));
    to.streamStop();
  }

  function commit(to: MemoryTransport, xid: number, at: number): void {
    to.streamCommit({ xid, commitLsn: lsn(at), endLsn: lsn(at + 1), commitTime: at });
  }

  /** All that is there. */
  async function taken(from: MemoryTransport, hold?: Lsn): Promise<unknown[]> {
    const all: unknown[] = [];
    for (;;) {
      const delivery = await from.take(0, hold);
      if (delivery === undefined) return all;
      if (delivery.kind !== "group") {
        all.push(delivery.kind);
        continue;
      }
      const { members, begins, ends, changes, inProgress, rolledBack } = delivery.group;
      from.release(delivery.group);
      const flags = [
        begins && "begins",
        ends && "ends",
        inProgress && "in progress",
        rolledBack && "rolled back",
      ];
      all.push([members.map((member) => member.transaction.xid), changes.length, ...flags.filter(Boolean)]);
    }
  }

  test("comes in slices, behind what committed before each and before what committed behind it", async () => {
    const carrier = transport();
    send(carrier, 10, [1]);
    block(carrier, 7, [1, 1]);
    send(carrier, 20, [1]);
    send(carrier, 30, [1]);
    block(carrier, 8, [1]);
    block(carrier, 7, [1]);
    commit(carrier, 7, 40);
    send(carrier, 50, [1]);
    expect(carrier.midTransaction).toBe(false);
    expect(await taken(carrier)).toEqual([
      [[10], 1, "begins", "ends"],
      [[7], 2, "begins", "in progress"],
      [[20, 30], 2, "begins", "ends"],
      [[8], 1, "begins", "in progress"],
      [[7], 1, "in progress"],
      [[7], 0, "ends", "in progress"],
      [[50], 1, "begins", "ends"],
    ]);
    expect(carrier.midTransaction).toBe(false);
    expect(carrier.empty).toBe(true);
    expect(carrier.completeLsn).toBe(51n);
  });

  test("is cut where it grows, and never given ahead", async () => {
    const carrier = transport({ capacityBytes: 4_000 });
    block(carrier, 7, [500, 500, 500]);
    expect(await carrier.takeAhead(Promise.resolve())).toBeUndefined();
    expect(await taken(carrier)).toEqual([
      [[7], 2, "begins", "in progress"],
      [[7], 1, "in progress"],
    ]);
  });

  test("without changes is news of a position alone", async () => {
    const carrier = transport();
    block(carrier, 7, []);
    commit(carrier, 7, 40);
    block(carrier, 8, []);
    carrier.streamAbort(8, 8);
    expect(await carrier.take(0)).toEqual({ kind: "idle", lsn: 41n, commitTime: 40 });
    expect(await taken(carrier)).toEqual([]);
  });

  test("that is rolled back loses what is still here, and what was taken is taken back", async () => {
    const carrier = transport();
    block(carrier, 7, [1]);
    expect(shape(await carrier.take(0))).toMatchObject({ begins: true, ends: false });
    block(carrier, 7, [1]);
    send(carrier, 10, [1]);
    carrier.streamAbort(7, 7);
    expect(await taken(carrier)).toEqual([
      [[10], 1, "begins", "ends"],
      [[7], 0, "ends", "in progress", "rolled back"],
    ]);
  });

  test("cannot lose a part of it", () => {
    const carrier = transport();
    block(carrier, 7, [1]);
    expect(() => carrier.streamAbort(7, 8)).toThrow(expect.objectContaining({ code: "ERS-510" }));
  });

  test("does not stand in the way of a hold: it commits behind it", async () => {
    const carrier = transport();
    block(carrier, 7, [1]);
    send(carrier, 10, [1]);
    block(carrier, 7, [1, 1]);
    expect(await taken(carrier, lsn(30))).toEqual([
      [[7], 1, "begins", "in progress"],
      [[10], 1, "begins", "ends"],
      [[7], 2, "in progress"],
    ]);
    block(carrier, 7, [1]);
    carrier.idle(lsn(30));
    expect(await taken(carrier, lsn(30))).toEqual(["held"]);
    commit(carrier, 7, 40);
    send(carrier, 50, [1]);
    expect(await taken(carrier, lsn(30))).toEqual([]);
    expect(carrier.oldestCommitTime).toBe(40);
    expect(carrier.empty).toBe(false);
    expect(await taken(carrier)).toEqual([
      [[7], 1, "in progress"],
      [[7], 0, "ends", "in progress"],
      [[50], 1, "begins", "ends"],
      "idle",
    ]);
  });

  test("that commits behind the end is not the end's business", async () => {
    const carrier = transport({ untilLsn: lsn(30) });
    block(carrier, 7, [1]);
    send(carrier, 10, [1]);
    commit(carrier, 7, 40);
    expect(shape(await carrier.take(0))).toMatchObject({ ends: false });
    expect(shape(await carrier.take(0))).toMatchObject({ ends: true });
    expect(await carrier.take(0)).toEqual({ kind: "end", lsn: 30n });
  });

  test("keeps the source from being read otherwise", () => {
    const carrier = transport();
    block(carrier, 7, [1]);
    expect(carrier.cut()).toBe(false);
    commit(carrier, 7, 40);
    expect(carrier.cut()).toBe(true);
    expect(carrier.completeLsn).toBe(41n);
  });
});
