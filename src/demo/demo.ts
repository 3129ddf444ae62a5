import { setTimeout as sleep } from "node:timers/promises";
import type { Client } from "pg";
import { ErserverError } from "../errors/erserver-error.ts";
import { formatCount, formatDuration, plural } from "../observability/figures.ts";
import { initPipeline } from "../pipeline/init.ts";
import { verifyTarget } from "../verify/verify.ts";
import { Replication } from "./replication.ts";
import type { Fact, Screen } from "./screen.ts";
import {
  connect,
  type Servers,
  type ServerOptions,
  startServers,
  TARGETS,
  type TargetName,
} from "./servers.ts";
import { arrival, Traffic } from "./traffic.ts";

export interface DemoOptions extends ServerOptions {
  /** Leave servers and replication running until the signal. */
  readonly keep: boolean;
  readonly screen: Screen;
  readonly signal: AbortSignal;
  /** How erserver is called here, for the commands to go on with: `erserver`. */
  readonly program: string;
}

/** How long the shop is watched in good times, and how long a target stays away. */
const SELLING_MS = 4_000;
const OUTAGE_MS = 5_000;
const LAG_SAMPLE_MS = 60;
const REDRAW_MS = 120;

const SOURCE = "new-york";

/** The chapter's own example. */
const CUSTOMER = 10;
const UPDATE = `UPDATE customer SET lastname = 'Nathaniel' WHERE cust_id = ${CUSTOMER}`;

/**
 * Shows replication with servers of its own: copy, following, the outage of a target, and the proof that nothing was lost. Whatever
 * happens, nothing is left behind. Throws ERS-902 when the signal came before the end.
 */
export async function runDemo(options: DemoOptions): Promise<void> {
  try {
    await tell(options);
  } catch (error) {
    if (!options.signal.aborted) throw error;
    throw new ErserverError("ERS-902", "the demo was interrupted; its servers are stopped and removed", {
      remedy: `Run it again: ${options.program} demo`,
      cause: error,
    });
  }
}

/** What the steps share. */
interface Stage {
  readonly screen: Screen;
  readonly signal: AbortSignal;
  readonly servers: Servers;
  readonly replication: Replication;
  readonly traffic: Traffic;
}

async function tell(options: DemoOptions): Promise<void> {
  const { screen, signal } = options;
  const startMs = performance.now();
  screen.title("erserver demo: a bookshop in New York, and its copies in London and Tokyo");
  await using servers = await startStep(options);
  signal.throwIfAborted();
  await loadStep(screen, servers);
  await using replication = await Replication.prepare(servers);
  await replicateStep(screen, replication, signal);
  await using traffic = new Traffic(servers.url(servers.source));
  const stage: Stage = { screen, signal, servers, replication, traffic };
  const lag = await sellStep(stage);
  await renameStep(stage);
  const outageMs = await outageStep(stage);
  const tables = await compareStep(stage);
  await traffic.stop();
  screen.note(
    `All ${tables} tables are equal in New York, London and Tokyo: ${plural(traffic.committed, "transaction")},\n` +
      `each whole, once and in order, ${formatDuration(lag)} after its commit as a rule. Tokyo was away\n` +
      `for ${formatDuration(outageMs)}, and nobody had to do anything about it.\n` +
      `The demo took ${formatDuration(performance.now() - startMs)}.`,
    "good",
  );
  if (options.keep) await keepRunning(options, servers, replication);
  else screen.note(howToContinue(options.program));
}

async function startStep(options: DemoOptions): Promise<Servers> {
  const { screen } = options;
  screen.step("Start three PostgreSQL servers");
  screen.now([{ server: "", text: "starting ..." }]);
  const servers = await startServers(options);
  const fact = (server: string, { version, port }: Servers["source"], role: string): void =>
    screen.fact({ server, text: `${role}, PostgreSQL ${version}, port ${port}` });
  fact(SOURCE, servers.source, "source");
  for (const name of TARGETS) fact(name, servers.targets[name], "target");
  return servers;
}

async function loadStep(screen: Screen, servers: Servers): Promise<void> {
  screen.step("Open the bookshop in New York");
  await servers.load();
  const source = await connect(servers.url(servers.source));
  const { rows } = await source.query<{ tables: number; rows: number }>(
    "select count(*)::int as tables, sum(reltuples)::int as rows from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace",
  );
  await source.end();
  const [{ tables, rows: count } = { tables: 0, rows: 0 }] = rows;
  screen.fact({ server: SOURCE, text: `${plural(tables, "table")} with ${plural(count, "row")}` });
  for (const server of TARGETS) screen.fact({ server, text: "the same tables, empty" });
}

async function replicateStep(screen: Screen, replication: Replication, signal: AbortSignal): Promise<void> {
  const { config, log } = replication;
  screen.step("Start replication");
  const problems = new Map<string, string>();
  for (const target of config.targets) {
    const initialized = await initPipeline({ config, target, log });
    for (const { code, message, remedy } of initialized.problems)
      problems.set(message, `${message} (${code})\n  → ${remedy}`);
  }
  replication.start();
  const took = await Promise.all(TARGETS.map((name) => replication.reaches(name, "streaming", signal)));
  for (const [index, server] of TARGETS.entries()) {
    const copy = replication.status(server).copy;
    const copied =
      copy === undefined
        ? ""
        : `${plural(copy.tablesDone, "table")} with ${plural(copy.rowsDone, "row")} copied, `;
    screen.fact({
      server,
      text: `${copied}streaming after ${formatDuration(took[index] ?? 0)}`,
      mood: "good",
    });
  }
  for (const problem of problems.values()) screen.note(problem, "warning");
}

/** Sells for a while; returns the median lag in milliseconds. */
async function sellStep(stage: Stage): Promise<number> {
  const { screen, traffic } = stage;
  screen.step(`Customers buy books, and never stop until the end of the demo`);
  traffic.start();
  const lags = await watch(stage, TARGETS, () => measureLag(stage, TARGETS, SELLING_MS));
  for (const fact of facts(stage, TARGETS)) {
    const of = lags.get(fact.server as TargetName);
    screen.fact(of === undefined ? fact : { ...fact, text: `${fact.text}, ${lagText(of)}` });
  }
  return median([...lags.values()].flat());
}

async function renameStep({ screen, signal, servers, traffic }: Stage): Promise<void> {
  screen.step(UPDATE);
  await using sessions = await openSessions(servers, TARGETS);
  await traffic.commit(sessions.source, UPDATE);
  const sought = `select cust_id, lastname, firstname from customer where cust_id = ${CUSTOMER} and lastname = 'Nathaniel'`;
  const took = await Promise.all(sessions.targets.map(({ client }) => arrival(client, sought, signal)));
  screen.fact({ server: SOURCE, text: await firstRow(sessions.source, sought) });
  for (const [index, { name, client }] of sessions.targets.entries()) {
    const after = formatDuration(took[index] ?? 0);
    screen.fact({ server: name, text: `${await firstRow(client, sought)}   after ${after}`, mood: "good" });
  }
}

/** Takes Tokyo's server away and gives it back; returns for how many milliseconds it was away. */
async function outageStep(stage: Stage): Promise<number> {
  const { screen, signal, servers, replication, traffic } = stage;
  screen.step("Stop Tokyo's server while New York goes on selling");
  const soldBefore = traffic.committed;
  const stoppedMs = performance.now();
  await servers.targets.tokyo.stop();
  await replication.reaches("tokyo", "offline", signal);
  const { since } = replication.status("tokyo");
  screen.fact({ server: "tokyo", text: `offline since ${since.toTimeString().slice(0, 8)}`, mood: "bad" });
  const lags = await watch(stage, ["london"], () => measureLag(stage, ["london"], OUTAGE_MS));
  const { error } = replication.status("tokyo");
  if (error !== undefined) screen.fact({ server: "", text: `${error.code} ${error.message}` });
  screen.fact({
    server: SOURCE,
    text: `${plural(traffic.committed - soldBefore, "transaction")} committed meanwhile`,
  });
  screen.fact({
    server: "london",
    text: `${replication.status("london").state}, ${lagText(lags.get("london") ?? [])}: not delayed`,
    mood: "good",
  });

  screen.step("Start Tokyo's server again, and do nothing else");
  await servers.targets.tokyo.start();
  const outageMs = performance.now() - stoppedMs;
  await using sessions = await openSessions(servers, ["tokyo"]);
  const [tokyo] = sessions.targets;
  if (tokyo === undefined) return outageMs;
  const mark = await traffic.sellOne(sessions.source);
  const appliedBefore = replication.status("tokyo").transactions;
  const tookMs = await watch(stage, TARGETS, () => arrival(tokyo.client, invoiceQuery(mark), signal));
  await replication.reaches("tokyo", "streaming", signal);
  const applied = replication.status("tokyo").transactions - appliedBefore;
  screen.fact({
    server: "tokyo",
    text: `level with New York ${formatDuration(tookMs)} after its start: ${plural(applied, "transaction")} applied`,
    mood: "good",
  });
  return outageMs;
}

async function compareStep({ screen, signal, servers, replication }: Stage): Promise<number> {
  screen.step("Compare every table by content, while customers go on buying");
  const verdicts = new Map<string, string[]>();
  for (const name of TARGETS) {
    const onTable = ({
      table,
      sourceRows,
      equal,
    }: {
      table: string;
      sourceRows: number;
      equal: boolean;
    }): void => {
      const row = verdicts.get(table) ?? [table, formatCount(sourceRows)];
      verdicts.set(table, [...row, equal ? "equal" : "DIFFERENT"]);
      screen.now([{ server: name, text: table }]);
    };
    const { config, log } = replication;
    const { tables } = await verifyTarget({ config, target: replication.target(name), log, signal, onTable });
    const different = tables.filter((table) => !table.equal).map(({ table }) => table);
    if (different.length === 0) continue;
    throw new ErserverError("ERS-801", `${name}: content differs from the source: ${different.join(", ")}`, {
      subject: name,
      remedy: `This must not happen; please report it with the server's versions, ${servers.source.version} and ${servers.targets[name].version}.`,
    });
  }
  const rows = [...verdicts.values()].toSorted(([a = ""], [b = ""]) => a.localeCompare(b));
  screen.table([["table", "rows", ...TARGETS], ...rows]);
  return rows.length;
}

async function keepRunning(
  { screen, signal, program }: DemoOptions,
  servers: Servers,
  replication: Replication,
): Promise<void> {
  const lines = [
    "Servers and replication stay until Ctrl-C, and are then removed.",
    "Meanwhile, in another terminal:",
    "",
    `  psql ${servers.url(servers.source)}    # ${SOURCE}`,
    ...TARGETS.map((name) => `  psql ${servers.url(servers.targets[name])}    # ${name}`),
    "",
    `  ${program} status -c ${replication.configFile} --watch`,
    `  ${program} verify -c ${replication.configFile}`,
  ];
  screen.note(lines.join("\n"));
  while (!signal.aborted) {
    for (const name of TARGETS) replication.status(name);
    await sleep(200, undefined, { signal }).catch(() => {});
  }
}

function howToContinue(program: string): string {
  return [
    "To go on:",
    `  ${program} demo --keep   leaves this running, to try status and verify`,
    `  ${program} run           replicates servers of yours, with this in erserver.yaml:`,
    "",
    "    source: postgres://replicator@ny.example/booktown",
    "    targets:",
    "      london: postgres://replicator@london.example/booktown",
  ].join("\n");
}

interface Sessions extends AsyncDisposable {
  readonly source: Client;
  readonly targets: readonly { readonly name: TargetName; readonly client: Client }[];
}

async function openSessions(servers: Servers, names: readonly TargetName[]): Promise<Sessions> {
  const source = await connect(servers.url(servers.source));
  const targets = await Promise.all(
    names.map(async (name) => ({ name, client: await connect(servers.url(servers.targets[name])) })),
  );
  return {
    source,
    targets,
    [Symbol.asyncDispose]: async () => {
      await Promise.all(
        [source, ...targets.map(({ client }) => client)].map((client) => client.end().catch(() => {})),
      );
    },
  };
}

/** Milliseconds from the commit on the source to a reader on the target, sampled all the time. */
async function measureLag(
  { servers, signal, replication, traffic }: Stage,
  names: readonly TargetName[],
  forMs: number,
): Promise<Map<TargetName, number[]>> {
  await using sessions = await openSessions(servers, names);
  const lags = new Map<TargetName, number[]>(names.map((name) => [name, []]));
  const endMs = performance.now() + forMs;
  while (performance.now() < endMs) {
    for (const name of names) replication.status(name);
    const sought = invoiceQuery(await traffic.sellOne(sessions.source));
    const sample = async ({ name, client }: (typeof sessions.targets)[number]): Promise<void> => {
      lags.get(name)?.push(await arrival(client, sought, signal));
    };
    await Promise.all(sessions.targets.map(sample));
    await sleep(LAG_SAMPLE_MS, undefined, { signal });
  }
  return lags;
}

const invoiceQuery = (id: number): string => `select from invoice where invoice_id = ${id}`;

/** Draws what happens again and again while the work goes on. */
async function watch<T>(stage: Stage, names: readonly TargetName[], work: () => Promise<T>): Promise<T> {
  const draw = (): void => stage.screen.now(facts(stage, names));
  const timer = setInterval(draw, REDRAW_MS);
  try {
    return await work();
  } finally {
    clearInterval(timer);
  }
}

function facts({ replication, traffic }: Stage, names: readonly TargetName[]): Fact[] {
  const ofTarget = (server: TargetName): Fact => {
    const { state, transactions, since } = replication.status(server);
    const text = `${plural(transactions, "transaction")} applied`;
    return state === "offline"
      ? {
          server,
          text: `offline for ${formatDuration(Date.now() - since.getTime())}, reconnecting`,
          mood: "bad",
        }
      : { server, text: state === "streaming" ? text : `${state}, ${text}` };
  };
  return [
    { server: SOURCE, text: `${plural(traffic.committed, "transaction")} committed` },
    ...names.map(ofTarget),
  ];
}

function lagText(samples: readonly number[]): string {
  return `lag ${formatDuration(median(samples))}, at worst ${formatDuration(Math.max(0, ...samples))}`;
}

function median(samples: readonly number[]): number {
  return samples.toSorted((a, b) => a - b)[Math.floor(samples.length / 2)] ?? 0;
}

async function firstRow(client: Client, sql: string): Promise<string> {
  const { rows } = await client.query<Record<string, unknown>>(sql);
  return Object.values(rows[0] ?? {}).join(" | ");
}
