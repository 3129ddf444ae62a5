/** What can go wrong around a replicator, one at a time or several at once. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Cluster } from "../../src/demo/cluster.ts";
import { openSession } from "./clusters.ts";
import { commandTag, type FrameRule, type From, type Proxy } from "./proxy.ts";
import { type ReplicatorHome, ReplicatorProcess } from "./replicator-process.ts";
import type { SeededRandom } from "./soak-random.ts";

type Side = "source" | "target";

/** What a fault keeps for itself while it lasts: two that share nothing may overlap. */
export type Victim = "replicator" | `${Side} server` | `${Side} network`;

/** The servers, the networks to them, and the replicator in between. */
export interface Site {
  readonly servers: Readonly<Record<Side, Cluster>>;
  readonly networks: Readonly<Record<Side, Proxy>>;
  readonly home: ReplicatorHome;
  /** The replicator that is meant to run; a supervisor would start it again. */
  replicator: ReplicatorProcess;
  /** `timeout` of its configuration. */
  readonly timeoutMs: number;
}

export interface Fault {
  readonly name: string;
  readonly victim: Victim;
  /** Resolves with what was done, when its cause is gone again. */
  readonly strike: (site: Site, random: SeededRandom) => Promise<string | undefined>;
}

/** Which sessions are the replicator's, whatever it uses them for. */
export const OUR_SESSIONS = "application_name like 'erserver %' and application_name <> 'erserver test'";

const replicatorFaults: readonly Fault[] = [
  {
    name: "replicator killed",
    victim: "replicator",
    strike: async (site, random) => {
      await site.replicator.kill();
      await sleep(random.pick([0, random.integer(0, 1_500)]));
      site.replicator = ReplicatorProcess.start(site.home);
      return undefined;
    },
  },
  {
    name: "replicator stopped and started",
    victim: "replicator",
    strike: async (site) => {
      await site.replicator.stop();
      site.replicator = ReplicatorProcess.start(site.home);
      return undefined;
    },
  },
  {
    name: "replicator frozen",
    victim: "replicator",
    strike: async (site, random) => {
      const ms = random.integer(site.timeoutMs, site.timeoutMs * 5);
      site.replicator.freeze();
      await sleep(ms);
      site.replicator.thaw();
      return `${ms} ms`;
    },
  },
  {
    name: "two replicators",
    victim: "replicator",
    strike: async (site, random) => {
      const second = ReplicatorProcess.start(site.home);
      await sleep(random.integer(500, 3_000));
      second.assertRunning();
      if (random.chance(0.5)) {
        await (random.chance(0.5) ? second.kill() : second.stop());
        return "the second ended";
      }
      const first = site.replicator;
      site.replicator = second;
      await (random.chance(0.7) ? first.kill() : first.stop());
      return "the first ended";
    },
  },
];

function serverFaults(side: Side): Fault[] {
  const victim = `${side} server` as const;
  return [
    {
      name: `${side} server stopped at once`,
      victim,
      strike: async ({ servers }, random) => {
        const downMs = random.pick([0, random.integer(0, 3_000)]);
        await (random.chance(0.3) ? servers[side].kill() : servers[side].stop("immediate"));
        await sleep(downMs);
        await servers[side].start();
        return `for ${downMs} ms`;
      },
    },
    {
      name: `${side} server restarted`,
      victim,
      strike: async ({ servers }) => {
        await servers[side].restart("fast");
        return undefined;
      },
    },
    {
      name: `${side} server hangs`,
      victim,
      strike: async ({ servers, timeoutMs }, random) => {
        const ms = random.integer(timeoutMs / 2, timeoutMs * 2);
        servers[side].pause();
        await sleep(ms);
        servers[side].unpause();
        return `${ms} ms`;
      },
    },
    {
      name: `${side} sessions terminated`,
      victim,
      strike: async ({ servers }, random) => {
        const client = await openSession(servers[side].url());
        try {
          const { rowCount } = await client.query(
            `select pg_terminate_backend(pid) from (select pid from pg_stat_activity where ${OUR_SESSIONS} order by random() limit $1) ours`,
            [random.pick([1, 100])],
          );
          return `${rowCount} of them`;
        } finally {
          await client.end();
        }
      },
    },
  ];
}

/** Where a frame of each kind is met: rows and status updates on the one side, statements and their answers on the other. */
const FRAMES: Readonly<Record<Side, readonly (readonly [From, string])[]>> = {
  source: [
    ["server", "d"],
    ["client", "d"],
  ],
  target: [
    ["client", "B"],
    ["client", "S"],
    ["server", "2"],
    ["server", "Z"],
  ],
};

function networkFaults(side: Side): Fault[] {
  const victim = `${side} network` as const;
  return [
    {
      name: `${side} network cut`,
      victim,
      strike: async ({ networks }) => {
        networks[side].cut();
        return undefined;
      },
    },
    {
      name: `${side} network cut for a while`,
      victim,
      strike: async ({ networks }, random) => {
        const ms = random.integer(100, 3_000);
        networks[side].refuse();
        networks[side].cut();
        await sleep(ms);
        await networks[side].accept();
        return `${ms} ms`;
      },
    },
    {
      name: `${side} network cut inside a frame`,
      victim,
      strike: async ({ networks }, random) => {
        const [from, type] = random.pick(FRAMES[side]);
        return rule(networks[side], {
          from,
          type,
          action: random.pick(["cut-inside", "cut-before", "cut-after"]),
        });
      },
    },
    {
      name: `${side} network cut after some bytes`,
      victim,
      strike: async ({ networks }, random) => {
        const [bytes, from] = [random.integer(1, 200_000), random.pick(["client", "server"] as const)];
        networks[side].cutAfter(bytes, from);
        await sleep(500);
        return `${bytes} from the ${from}`;
      },
    },
    {
      name: `${side} network stalled`,
      victim,
      strike: async ({ networks, timeoutMs }, random) => {
        const ms = random.integer(timeoutMs / 2, timeoutMs * 2);
        const from = random.pick(["client", "server", "both"] as const);
        networks[side].stall(from);
        await sleep(ms);
        networks[side].resume();
        return `${ms} ms, what comes from ${from}`;
      },
    },
    {
      name: `${side} forgets us`,
      victim,
      strike: async ({ networks }) => {
        networks[side].halfOpen("client");
        return undefined;
      },
    },
    {
      name: `${side} does not hear that we are gone`,
      victim,
      strike: async ({ networks, timeoutMs }) => {
        networks[side].halfOpen("server");
        await sleep(timeoutMs * 2);
        // What TCP keepalives do in a network whose other end does not answer them.
        networks[side].cut();
        return undefined;
      },
    },
    {
      name: `${side} network slow`,
      victim,
      strike: async ({ networks }, random) => {
        const network = networks[side];
        const delayMs = random.integer(20, 200);
        network.delay(delayMs);
        await sleep(2_000);
        network.delay(0);
        return `${delayMs} ms`;
      },
    },
  ];
}

const lostAcknowledgement: Fault = {
  name: "acknowledgement of a COMMIT lost",
  victim: "target network",
  strike: ({ networks }) =>
    rule(networks.target, {
      from: "server",
      type: "C",
      match: (frame) => commandTag(frame) === "COMMIT",
      action: "cut-before",
    }),
};

/** Those that the issue names come up more often than their variants. */
export const FAULTS: readonly Fault[] = [
  ...replicatorFaults,
  ...replicatorFaults.slice(0, 1),
  ...serverFaults("source"),
  ...serverFaults("target"),
  ...networkFaults("source"),
  ...networkFaults("target"),
  lostAcknowledgement,
  lostAcknowledgement,
];

/** Waits a little for the frame; when nothing flows it is met later, as one more surprise. */
async function rule(network: Proxy, frame: FrameRule): Promise<string> {
  const struck = await Promise.race([network.next(frame).then(() => true), sleep(3_000, false)]);
  return `${frame.action} ${frame.type} from the ${frame.from}${struck ? "" : ", still to come"}`;
}
