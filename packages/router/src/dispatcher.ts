import type { RouterPolicy } from "@slime/backend";
import { backoffDelayMs, type Clock, type Logger, type Random, SlimeError, sleep } from "@slime/core";
import { Fleet, isAble, type Worker } from "./fleet.js";
import type { RouterLimits } from "./options.js";
import type { AttemptOutcome, ForwardRequest, ReplySink, Transport } from "./transport.js";

export interface DispatcherCounts {
  readonly requests: number;
  readonly failures: number;
  readonly retries: number;
  /** Streams that broke after their first byte. */
  readonly cut: number;
}

/** Who answers: told to the sink's owner before `begin`. */
export type Chosen = (worker: Worker) => void;

interface Stay {
  readonly controller: AbortController;
  readonly sent: Promise<void>;
  readonly ended: Promise<unknown>;
}

/**
 * The life of a request: an engine is found or waited for, tried, and another tried when that is safe.
 * P1: a request goes to an engine only in the turn in which the fleet picked it, so never to a fenced or unhealthy one.
 * P2: after the first byte of an answer there is no second try. P3: every request ends: answered, passed on as refused, or failed with a reason.
 * P4: waiting is bounded in number and time. P5: an engine that stops answering probes loses the requests that still wait for their first byte
 * there to other engines; streams from it are cut with an error.
 */
export class Dispatcher {
  readonly fleet: Fleet;
  readonly #transport: Transport;
  readonly #limits: RouterLimits;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #log: Logger;
  readonly #waiting = new Set<() => void>();
  readonly #stays = new Map<string, Set<Stay>>();
  readonly #probing = new Map<string, Promise<void>>();
  #counts = { requests: 0, failures: 0, retries: 0, cut: 0 };

  constructor(
    policy: RouterPolicy,
    transport: Transport,
    limits: RouterLimits,
    context: { readonly clock: Clock; readonly random: Random; readonly log: Logger },
  ) {
    this.fleet = new Fleet(policy, limits.brokenMax);
    this.#transport = transport;
    this.#limits = limits;
    this.#clock = context.clock;
    this.#random = context.random;
    this.#log = context.log;
  }

  get counts(): DispatcherCounts {
    return this.#counts;
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  /** Requests may have become possible. Call after anything that opens or admits an engine. */
  changed(): void {
    if (this.fleet.able === 0) return;
    for (const wake of [...this.#waiting]) wake();
  }

  /** Serves one request to its end. @throws `engine.unavailable` when no engine could take it, `wire.limit` when too many wait; nothing was passed on then. The signal's abort ends it silently. */
  async handle(request: ForwardRequest, sink: ReplySink, chosen: Chosen, signal: AbortSignal): Promise<void> {
    this.#counts.requests++;
    const tried = new Set<string>();
    let last = "";
    let until: number | null = null;
    for (let attempt = 1; !signal.aborted; ) {
      const worker = this.fleet.pick(tried);
      if (worker === null) {
        until ??= this.#clock.nowMs() + this.#limits.waitMs;
        await this.#wait(until, signal);
        continue;
      }
      until = null;
      tried.add(worker.id);
      const outcome = await this.#stay(worker, request, sink, chosen, attempt === this.#limits.retry.triesMax, signal);
      if (outcome.kind === "answered" || signal.aborted) return;
      if (outcome.kind === "cut") {
        this.#counts.cut++;
        this.#counts.failures++;
        this.#log.warn("router.stream_cut", { request: request.id, worker: worker.url, reason: outcome.reason });
        return;
      }
      last = describe(worker, outcome);
      this.#log.warn("router.attempt_failed", { request: request.id, worker: worker.url, attempt, reason: last });
      attempt++;
      const delay = backoffDelayMs(this.#limits.retry, attempt, this.#random);
      if (delay === null) this.#fail(`all ${this.#limits.retry.triesMax} tries failed; the last: ${last}`);
      this.#counts.retries++;
      if (!this.fleet.workers.some((other) => isAble(other) && !tried.has(other.id)))
        await sleep(this.#clock, delay, signal).catch(() => {});
    }
  }

  #fail(reason: string): never {
    this.#counts.failures++;
    throw new SlimeError("engine.unavailable", `no engine could answer: ${reason}`, { engine: "any", reason });
  }

  /** Sends to an engine just picked and keeps its count. */
  async #stay(
    worker: Worker,
    request: ForwardRequest,
    sink: ReplySink,
    chosen: Chosen,
    passRefusals: boolean,
    signal: AbortSignal,
  ): Promise<AttemptOutcome> {
    const controller = new AbortController();
    const onAbort = () => controller.abort();
    signal.addEventListener("abort", onAbort, { once: true });
    chosen(worker);
    const { outcome, sent } = this.#transport.send(worker.url, request, sink, { passRefusals, signal: controller.signal });
    const stay: Stay = { controller, sent, ended: outcome };
    const stays = this.#stays.get(worker.id) ?? new Set();
    this.#stays.set(worker.id, stays.add(stay));
    const result = await outcome;
    signal.removeEventListener("abort", onAbort);
    stays.delete(stay);
    if (stays.size === 0) this.#stays.delete(worker.id);
    const how =
      signal.aborted || result.kind === "abandoned"
        ? "abandoned"
        : result.kind === "cut"
          ? "broken"
          : result.kind === "refused"
            ? "answered"
            : result.kind;
    this.fleet.ended(worker.id, how, "reason" in result ? result.reason : "");
    if (how === "broken" || how === "unreachable") void this.probe(worker.id);
    return result;
  }

  /** Until an engine may take the request, or the client left. @throws as `handle`. */
  async #wait(until: number, signal: AbortSignal): Promise<void> {
    const left = until - this.#clock.nowMs();
    if (left <= 0) this.#fail(`none was ready within ${this.#limits.waitMs} ms (${this.#describe()})`);
    if (this.#waiting.size >= this.#limits.waitingMax) {
      this.#counts.failures++;
      const what = `${this.#waiting.size} requests already wait for an engine, at most waitingMax (${this.#limits.waitingMax}); send fewer at once`;
      throw new SlimeError("wire.limit", what, { what: "waiting requests", value: this.#waiting.size + 1, max: this.#limits.waitingMax });
    }
    await this.#turn(left, signal);
  }

  /** Until something changed, the time is up or the client left. */
  #turn(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        this.#waiting.delete(wake);
        timer.cancel();
        signal.removeEventListener("abort", wake);
        resolve();
      };
      const timer = this.#clock.after(ms, wake);
      signal.addEventListener("abort", wake, { once: true });
      this.#waiting.add(wake);
    });
  }

  #describe(): string {
    const { workers } = this.fleet;
    if (workers.length === 0) return "no engine is registered; POST /workers";
    return workers
      .map(({ url, health, gate, draining }) => `${url} ${draining ? "drains" : health.kind !== "healthy" ? health.kind : gate.kind}`)
      .join(", ");
  }

  /** Forgets an engine. Requests in flight there end by themselves, or elsewhere when it was not healthy. */
  remove(id: string): void {
    const worker = this.fleet.get(id);
    if (worker === undefined) return;
    this.fleet.remove(id);
    this.#transport.forget(worker.url);
    if (worker.health.kind !== "healthy") this.#giveUp(id);
    this.#log.info("router.worker_removed", { worker: worker.url, id });
  }

  /** Closes an engine to new requests; resolves when those on their way have left for it. */
  async fence(id: string): Promise<void> {
    this.fleet.fence(id);
    const sent = Promise.all([...(this.#stays.get(id) ?? [])].map((stay) => stay.sent));
    await this.#within(sent, this.#limits.fenceMs);
  }

  open(id: string, version: number): void {
    this.fleet.open(id, version);
    this.changed();
  }

  /** No new requests; resolves when those in flight have ended. @throws `call.deadline`. The engine stays draining either way. */
  async drain(id: string, timeoutMs: number): Promise<void> {
    this.fleet.drain(id);
    const ended = Promise.all([...(this.#stays.get(id) ?? [])].map((stay) => stay.ended));
    if (!(await this.#within(ended, timeoutMs))) {
      const what = `draining ${this.fleet.get(id)?.url ?? id} (${this.#stays.get(id)?.size ?? 0} in flight)`;
      throw new SlimeError("call.deadline", `${what} did not finish within ${timeoutMs} ms`, { what, timeoutMs });
    }
  }

  /** True when `work` ended before `ms` had passed. */
  #within(work: Promise<unknown>, ms: number): Promise<boolean> {
    return new Promise((resolve) => {
      const timer = this.#clock.after(ms, () => resolve(false));
      void work.then(() => {
        timer.cancel();
        resolve(true);
      });
    });
  }

  /** Asks an engine how it is and acts on it; one probe of an engine at a time. A fenced engine is not asked: it may rightly be silent during a weight push. */
  probe(id: string): Promise<void> {
    const running = this.#probing.get(id);
    if (running !== undefined) return running;
    const probing = this.#probe(id).finally(() => this.#probing.delete(id));
    this.#probing.set(id, probing);
    return probing;
  }

  async #probe(id: string): Promise<void> {
    const worker: Worker | undefined = this.fleet.get(id);
    if (worker === undefined || worker.gate.kind === "fenced") return;
    const before = worker.health.kind;
    const result = await this.#transport.probe(worker.url, {
      timeoutMs: this.#limits.probeTimeoutMs,
      version: this.fleet.wantsVersion(id),
    });
    const now = this.fleet.get(id);
    if (now !== worker || now.gate.kind === "fenced") return;
    this.fleet.probed(id, result);
    if (result.ok) {
      if (before !== "healthy")
        this.#log.info("router.worker_admitted", { worker: worker.url, gate: worker.gate.kind, found: result.found });
      this.changed();
    } else {
      if (before !== "unhealthy") this.#log.warn("router.worker_ejected", { worker: worker.url, reason: result.reason });
      this.#giveUp(id);
    }
  }

  /** P5. */
  #giveUp(id: string): void {
    for (const stay of [...(this.#stays.get(id) ?? [])]) stay.controller.abort();
  }
}

function describe(worker: Worker, outcome: Exclude<AttemptOutcome, { kind: "answered" | "cut" }>): string {
  switch (outcome.kind) {
    case "refused":
      return `${worker.url} answered ${outcome.status}`;
    case "abandoned":
      return `${worker.url} stopped answering`;
    case "unreachable":
    case "broken":
      return `${worker.url}: ${outcome.reason}`;
  }
}
