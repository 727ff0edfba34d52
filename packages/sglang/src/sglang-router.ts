import type { EngineRole, Router, RouterStats, RouterWorker } from "@slime/backend";
import { type Clock, deadline, SlimeError, sleep, systemClock } from "@slime/core";
import { HttpClient, replyJson } from "@slime/router";
import { registerSecsMax } from "./router-args.js";
import { RouterWorkers } from "./router-workers.js";

/** Longer than the router itself tries, so that what we gave up cannot appear later. */
const addMsDefault = (registerSecsMax + 15) * 1_000;
const removeMsMax = 15_000;
/** After a removal a request that had been given to the engine before may still be on its way; on an overloaded machine some take longer. */
const onTheWayMs = 100;
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
 * in its list. F1 when `fence` or `drain` has resolved, this router gives the engine no request; what it gave before has had time to arrive. F2 `open` resolves when
 * the engine is in rotation. F3 changes of one engine happen one after another. What is fenced, and at which version, is known here and
 * not by the router: after a restart of it the run adds its engines again.
 */
export function sglangRouter(url: string, parts: SglangRouterParts = {}): Router {
  return new DrivenRouter(url, parts);
}

class DrivenRouter implements Router {
  readonly url: string;
  readonly #clock: Clock;
  readonly #metricsUrl: string | null;
  readonly #addMsMax: number;
  readonly #workers: RouterWorkers;
  readonly #known = new Map<string, Known>();
  /** The last change of each engine that has one under way (F3). */
  readonly #turns = new Map<string, Promise<unknown>>();

  constructor(url: string, { clock = systemClock, metricsUrl = null, addMsMax = addMsDefault }: SglangRouterParts) {
    this.url = url;
    this.#clock = clock;
    this.#metricsUrl = metricsUrl;
    this.#addMsMax = addMsMax;
    this.#workers = new RouterWorkers(url, clock);
  }

  add(given: string, { fenced = false, role = regular }: { readonly fenced?: boolean; readonly role?: EngineRole } = {}): Promise<void> {
    return this.#inTurn(given, async (engine) => {
      if (fenced) await this.#workers.remove(engine, removeMsMax);
      else await this.#workers.add(engine, role, this.#addMsMax);
      this.#known.set(engine, { role, gate: fenced ? "fenced" : "open", version: null });
    });
  }

  remove(given: string): Promise<void> {
    return this.#inTurn(given, async (engine) => {
      const wasListed = await this.#workers.remove(engine, removeMsMax);
      if (!this.#known.delete(engine) && !wasListed) this.#mustKnow(engine);
    });
  }

  fence(given: string): Promise<void> {
    return this.#inTurn(given, (engine) => this.#takeOut(engine, "fenced"));
  }

  open(given: string, version: number): Promise<void> {
    return this.#inTurn(given, async (engine) => {
      const before = this.#mustKnow(engine);
      await this.#workers.add(engine, before.role, this.#addMsMax);
      this.#known.set(engine, { ...before, gate: "open", version });
    });
  }

  drain(given: string, timeoutMs: number): Promise<void> {
    return this.#inTurn(given, async (engine) => {
      using limit = deadline(this.#clock, timeoutMs, `the drain of ${engine}`);
      await this.#takeOut(engine, "draining");
      while ((await requestsAt(engine, this.#clock)) > 0) await sleep(this.#clock, drainPollMs, limit.signal);
    });
  }

  async stats(): Promise<RouterStats> {
    const listed = await this.#workers.list();
    const counts = this.#metricsUrl === null ? noCounts : await countsAt(this.#metricsUrl, this.#clock);
    const inRotation = listed.map(
      ({ id, url, isHealthy, load }): RouterWorker => ({
        id,
        url,
        state: isHealthy ? "healthy" : "unhealthy",
        inFlight: load,
        weightVersion: this.#known.get(url)?.version ?? null,
      }),
    );
    const others = [...this.#known]
      .filter(([engine]) => !listed.some(({ url }) => url === engine))
      .map(
        ([engine, { gate, version }]): RouterWorker => ({
          id: engine,
          url: engine,
          state: gate === "open" ? "unhealthy" : gate,
          inFlight: 0,
          weightVersion: version,
        }),
      );
    return { ...counts, workers: [...inRotation, ...others] };
  }

  close(): Promise<void> {
    return this.#workers.close();
  }

  async #takeOut(engine: string, gate: Known["gate"]): Promise<void> {
    const before = this.#mustKnow(engine);
    if (await this.#workers.remove(engine, removeMsMax)) await sleep(this.#clock, onTheWayMs);
    this.#known.set(engine, { ...before, gate });
  }

  #mustKnow(engine: string): Known {
    const found = this.#known.get(engine);
    if (found !== undefined) return found;
    throw new SlimeError("not_found", `no engine ${engine} was added to the router at ${this.url}; add it first`, {
      kind: "engine",
      id: engine,
    });
  }

  #inTurn<T>(given: string, work: (engine: string) => Promise<T>): Promise<T> {
    const engine = new URL(given).origin;
    const turn = (this.#turns.get(engine) ?? Promise.resolve()).then(() => work(engine));
    const settled = turn
      .catch(() => {})
      .then(() => {
        if (this.#turns.get(engine) === settled) this.#turns.delete(engine);
      });
    this.#turns.set(engine, settled);
    return turn;
  }
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
