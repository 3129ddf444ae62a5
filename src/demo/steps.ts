import type { Client } from "pg";
import { ErserverError } from "../errors/erserver-error.ts";
import { formatCount, formatDuration, plural } from "../observability/figures.ts";
import { initPipeline } from "../pipeline/init.ts";
import { verifyTarget } from "../verify/verify.ts";
import { arrival, lagText, measureLag, median } from "./lag.ts";
import type { Replication } from "./replication.ts";
import type { Fact, Screen } from "./screen.ts";
import {
  connect,
  openSessions,
  type Servers,
  type ServerOptions,
  startServers,
  TARGETS,
  type TargetName,
} from "./servers.ts";
import { invoiceQuery, type Traffic } from "./traffic.ts";

/** How long the shop is watched in good times, and how long a target stays away. */
const SELLING_MS = 4_000;
const OUTAGE_MS = 5_000;
const REDRAW_MS = 120;

/** How the screen calls the source. */
export const SOURCE = "new-york";

/** The chapter's own example. */
const CUSTOMER = 10;
const UPDATE = `UPDATE customer SET lastname = 'Nathaniel' WHERE cust_id = ${CUSTOMER}`;

/** What the steps share. */
export interface Stage {
  readonly screen: Screen;
  readonly signal: AbortSignal;
  readonly servers: Servers;
  readonly replication: Replication;
  readonly traffic: Traffic;
}

/** Servers with empty databases. */
export async function startStep(screen: Screen, options: ServerOptions): Promise<Servers> {
  screen.step("Start three PostgreSQL servers");
  screen.now([{ server: "", text: "starting ..." }]);
  const servers = await startServers(options);
  const fact = (server: string, { version, port }: Servers["source"], role: string): void =>
    screen.fact({ server, text: `${role}, PostgreSQL ${version}, port ${port}` });
  fact(SOURCE, servers.source, "source");
  for (const name of TARGETS) fact(name, servers.targets[name], "target");
  return servers;
}

/** Booktown on the source, its definitions on the targets. */
export async function loadStep(screen: Screen, servers: Servers): Promise<void> {
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

/** Pipelines that stream. Names what will not be replicated. */
export async function replicateStep(
  screen: Screen,
  replication: Replication,
  signal: AbortSignal,
): Promise<void> {
  const { config, log } = replication;
  screen.step("Start replication");
  const problems = new Map<string, string>();
  for (const target of config.targets) {
    const initialized = await initPipeline({ config, target, log });
    for (const { code, message, remedy } of initialized.problems)
      problems.set(message, `${message} (${code}, and here on purpose)\n  → ${remedy}`);
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
export async function sellStep(stage: Stage): Promise<number> {
  const { screen, traffic } = stage;
  screen.step(`Customers buy books, and never stop until the end of the demo`);
  traffic.start();
  const lags = await watch(stage, TARGETS, () => measureLag({ ...stage, names: TARGETS, forMs: SELLING_MS }));
  for (const fact of facts(stage, TARGETS)) {
    const of = lags.get(fact.server as TargetName);
    screen.fact(of === undefined ? fact : { ...fact, text: `${fact.text}, ${lagText(of)}` });
  }
  return median([...lags.values()].flat());
}

/** One change, and how long it takes to arrive. */
export async function renameStep({ screen, signal, servers, traffic }: Stage): Promise<void> {
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
export async function outageStep(stage: Stage): Promise<number> {
  const { screen, signal, servers, replication, traffic } = stage;
  screen.step("Stop Tokyo's server while New York goes on selling");
  const soldBefore = traffic.committed;
  const stoppedMs = performance.now();
  await servers.targets.tokyo.stop();
  await replication.reaches("tokyo", "offline", signal);
  const { since } = replication.status("tokyo");
  screen.fact({ server: "tokyo", text: `offline since ${since.toTimeString().slice(0, 8)}`, mood: "bad" });
  const lags = await watch(stage, ["london"], () =>
    measureLag({ ...stage, names: ["london"], forMs: OUTAGE_MS }),
  );
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
  const appliedBefore = replication.status("tokyo").transactions;
  await servers.targets.tokyo.start();
  const startedMs = performance.now();
  const outageMs = startedMs - stoppedMs;
  await using sessions = await openSessions(servers, ["tokyo"]);
  const [tokyo] = sessions.targets;
  if (tokyo === undefined) return outageMs;
  const mark = await traffic.sellOne(sessions.source);
  await watch(stage, TARGETS, () => arrival(tokyo.client, invoiceQuery(mark), signal));
  const tookMs = performance.now() - startedMs;
  await replication.reaches("tokyo", "streaming", signal);
  const applied = replication.status("tokyo").transactions - appliedBefore;
  screen.fact({
    server: "tokyo",
    text: `level with New York ${formatDuration(tookMs)} after its start: ${plural(applied, "transaction")} applied`,
    mood: "good",
  });
  return outageMs;
}

/** Returns the number of tables; throws ERS-801 when one differs. */
export async function compareStep({ screen, signal, servers, replication }: Stage): Promise<number> {
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
    { server: SOURCE, text: `${plural(traffic.committed, "transaction")} committed so far` },
    ...names.map(ofTarget),
  ];
}

async function firstRow(client: Client, sql: string): Promise<string> {
  const { rows } = await client.query<Record<string, unknown>>(sql);
  return Object.values(rows[0] ?? {}).join(" | ");
}
