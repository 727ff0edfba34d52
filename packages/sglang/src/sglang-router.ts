import type { EngineRole, Router, RouterStats, RouterWorker } from "@slime/backend";
import { type Clock, deadline, SlimeError, sleep, systemClock } from "@slime/core";
import { HttpClient, replyJson } from "@slime/router";
import { registerSecsMax } from "./router-args.js";
import { RouterWorkers } from "./router-workers.js";

/** Longer than the router itself tries, so that what we gave up cannot appear later. */
const addMsDefault = (registerSecsMax + 15) * 1_000;
const removeMsMax = 15_000;
const drainPollMs = 200;
const askMsMax = 5_000;

export interface SglangRouterParts {
  readonly clock?: Clock;
  /** Its Prometheus page, for the counts of `stats`; null: they read 0. */
  readonly metricsUrl?: string | null;
  /** How long an engine may take to be registered. */
  readonly addMsMax?: number;
}

const regular: EngineRole = { kind: "regular" };

interface Known {
  readonly role: EngineRole;
  readonly gate: "open" | "fenced" | "draining";
  readonly version: number | null;
}

/**
 * Drives a running sglang_router through the port of `@slime/backend`. It knows nothing of fences, so a fenced engine is one that is not
 * in its list. F1 when `fence` or `drain` has resolved, no new request reaches the engine through this router. F2 `open` resolves when
 * the engine is in rotation. F3 changes of one engine happen one after another. What is fenced, and at which version, is known here and
 * not by the router: after a restart of it the run adds its engines again.
 */
export function sglangRouter(url: string, parts: SglangRouterParts = {}): Router {
  const { clock = systemClock, metricsUrl = null, addMsMax = addMsDefault } = parts;
  const workers = new RouterWorkers(url, clock);
  const known = new Map<string, Known>();
  const queues = new Map<string, Promise<unknown>>();

  const inTurn = <T>(engine: string, work: () => Promise<T>): Promise<T> => {
    const turn = (queues.get(engine) ?? Promise.resolve()).then(work, work);
    queues.set(
      engine,
      turn.catch(() => {}),
    );
    return turn;
  };
  const mustKnow = (engine: string): Known => {
    const found = known.get(engine);
    if (found !== undefined) return found;
    throw new SlimeError("not_found", `no engine ${engine} was added to the router at ${url}; add it first`, {
      kind: "engine",
      id: engine,
    });
  };
  const takeOut = async (engine: string, gate: Known["gate"]) => {
    const before = mustKnow(engine);
    await workers.remove(engine, removeMsMax);
    known.set(engine, { ...before, gate });
  };
  return {
    url,
    add: (given, { fenced = false, role = regular } = {}) => {
      const engine = originOf(given);
      return inTurn(engine, async () => {
        if (fenced) await workers.remove(engine, removeMsMax);
        else await workers.add(engine, role, addMsMax);
        known.set(engine, { role, gate: fenced ? "fenced" : "open", version: null });
      });
    },
    remove: (given) => {
      const engine = originOf(given);
      return inTurn(engine, async () => {
        const wasListed = await workers.remove(engine, removeMsMax);
        if (!known.delete(engine) && !wasListed) mustKnow(engine);
      });
    },
    fence: (given) => inTurn(originOf(given), () => takeOut(originOf(given), "fenced")),
    open: (given, version) => {
      const engine = originOf(given);
      return inTurn(engine, async () => {
        const before = mustKnow(engine);
        await workers.add(engine, before.role, addMsMax);
        known.set(engine, { ...before, gate: "open", version });
      });
    },
    drain: (given, timeoutMs) => {
      const engine = originOf(given);
      return inTurn(engine, async () => {
        using limit = deadline(clock, timeoutMs, `the drain of ${engine}`);
        await takeOut(engine, "draining");
        while ((await requestsAt(engine, clock)) > 0) await sleep(clock, drainPollMs, limit.signal);
      });
    },
    stats: async () => {
      const listed = await workers.list();
      const counts = metricsUrl === null ? noCounts : await countsAt(metricsUrl, clock);
      const fenced = [...known].filter(([engine]) => !listed.some((worker) => worker.url === engine));
      return {
        ...counts,
        workers: [
          ...listed.map(
            (worker): RouterWorker => ({
              id: worker.id,
              url: worker.url,
              state: worker.isHealthy ? "healthy" : "unhealthy",
              inFlight: worker.load,
              weightVersion: known.get(worker.url)?.version ?? null,
            }),
          ),
          ...fenced.map(
            ([engine, { gate, version }]): RouterWorker => ({
              id: engine,
              url: engine,
              state: gate === "open" ? "unhealthy" : gate,
              inFlight: 0,
              weightVersion: version,
            }),
          ),
        ],
      };
    },
    close: () => workers.close(),
  };
}

function originOf(engine: string): string {
  return new URL(engine).origin;
}

/** Requests an engine has, by its own word: the router counts only what some of its policies need. */
async function requestsAt(engine: string, clock: Clock): Promise<number> {
  const http = new HttpClient(engine, clock);
  try {
    const { loads } = replyJson(engine, await http.call({ method: "GET", path: "/v1/loads?include=core", timeoutMs: askMsMax }));
    const ranks = Array.isArray(loads) ? (loads as readonly Readonly<Record<string, unknown>>[]) : [];
    return ranks.reduce((sum, rank) => sum + Number(rank["num_running_reqs"] ?? 0) + Number(rank["num_waiting_reqs"] ?? 0), 0);
  } finally {
    await http.close();
  }
}

type Counts = Pick<RouterStats, "requests" | "failures" | "retries">;
const noCounts: Counts = { requests: 0, failures: 0, retries: 0 };

async function countsAt(metricsUrl: string, clock: Clock): Promise<Counts> {
  const { origin, pathname } = new URL(metricsUrl);
  const http = new HttpClient(origin, clock);
  try {
    return countsOf((await http.call({ method: "GET", path: pathname, timeoutMs: askMsMax })).body.toString("utf8"));
  } finally {
    await http.close();
  }
}

/** The counts of a Prometheus page of sglang_router 0.3.2; a family that has not counted yet is not on the page. */
export function countsOf(page: string): Counts {
  const sum = (family: string): number =>
    page
      .split("\n")
      .filter((line) => line.startsWith(`${family}{`) || line.startsWith(`${family} `))
      .reduce((total, line) => total + Number(line.slice(line.lastIndexOf(" ") + 1)), 0);
  return {
    requests: sum("smg_router_requests_total"),
    failures: sum("smg_router_request_errors_total"),
    retries: sum("smg_worker_retries_total"),
  };
}
