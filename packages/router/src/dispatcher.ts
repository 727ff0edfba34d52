import type { RouterPolicy } from "@slime/backend";
import { backoffDelayMs, type Clock, type Logger, type Random, SlimeError } from "@slime/core";
import { Fleet, isAble, type Worker } from "./fleet.js";
import type { RouterLimits } from "./options.js";
import type { Attempt, AttemptOutcome, ForwardRequest, Presence, ReplySink, Transport } from "./transport.js";

export interface DispatcherCounts {
  readonly requests: number;
  readonly failures: number;
  readonly retries: number;
  /** Streams that broke after their first byte. */
  readonly cut: number;
}

/** Who answers: told to the sink's owner before `begin`. */
export type Chosen = (worker: Worker) => void;

const none: ReadonlySet<string> = new Set();

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
  readonly #stays = new Map<string, Set<Attempt>>();
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

  /** Serves one request to its end. @throws `engine.unavailable` when no engine could take it, `wire.limit` when too many wait; nothing was passed on then. It ends silently when the client leaves. */
  async handle(request: ForwardRequest, sink: ReplySink, chosen: Chosen, client: Presence): Promise<void> {
    this.#counts.requests++;
    let tried: ReadonlySet<string> = none;
    let last = "";
    let until: number | null = null;
    for (let attempt = 1; !client.left; ) {
      const worker = this.fleet.pick(tried);
      if (worker === null) {
        until ??= this.#clock.nowMs() + this.#limits.waitMs;
        await this.#wait(until, client);
        continue;
      }
      until = null;
      const outcome = await this.#stay(worker, request, sink, chosen, attempt === this.#limits.retry.triesMax, client);
      if (outcome.kind === "answered" || client.left) return;
      if (outcome.kind === "cut") {
        this.#counts.cut++;
        this.#counts.failures++;
        this.#log.warn("router.stream_cut", { request: request.id, worker: worker.url, reason: outcome.reason });
        return;
      }
      last = describe(worker, outcome);
      attempt++;
      const delay = backoffDelayMs(this.#limits.retry, attempt, this.#random);
      if (delay === null) this.#fail(`all ${this.#limits.retry.triesMax} tries failed; the last: ${last}`);
      this.#counts.retries++;
      if (outcome.kind === "stale") continue;
      this.#log.warn("router.attempt_failed", { request: request.id, worker: worker.url, attempt: attempt - 1, reason: last });
      tried = new Set([...tried, worker.id]);
      const untried = this.fleet.workers.some((other) => isAble(other) && !tried.has(other.id));
      if (!untried) await this.#pause(delay, client);
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
    client: Presence,
  ): Promise<AttemptOutcome> {
    chosen(worker);
    const attempt = this.#transport.send(worker.url, request, sink, passRefusals);
    let stays = this.#stays.get(worker.id);
    if (stays === undefined) this.#stays.set(worker.id, (stays = new Set()));
    stays.add(attempt);
    client.watch(attempt.cancel);
    const result = await attempt.outcome;
    client.watch(null);
    stays.delete(attempt);
    if (stays.size === 0) this.#stays.delete(worker.id);
    const how =
      client.left || result.kind === "abandoned" || result.kind === "stale"
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
  async #wait(until: number, client: Presence): Promise<void> {
    const left = until - this.#clock.nowMs();
    if (left <= 0) this.#fail(`none was ready within ${this.#limits.waitMs} ms (${this.#describe()})`);
    if (this.#waiting.size >= this.#limits.waitingMax) {
      this.#counts.failures++;
      const what = `${this.#waiting.size} requests already wait for an engine, at most waitingMax (${this.#limits.waitingMax}); send fewer at once`;
      throw new SlimeError("wire.limit", what, { what: "waiting requests", value: this.#waiting.size + 1, max: this.#limits.waitingMax });
    }
    await this.#turn(left, client);
  }

  /** Until something changed, the time is up or the client left. */
  #turn(ms: number, client: Presence): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        this.#waiting.delete(wake);
        timer.cancel();
        client.watch(null);
        resolve();
      };
      const timer = this.#clock.after(ms, wake);
      this.#waiting.add(wake);
      client.watch(wake);
    });
  }

  /** Until the time is up or the client left. */
  #pause(ms: number, client: Presence): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        timer.cancel();
        client.watch(null);
        resolve();
      };
      const timer = this.#clock.after(ms, wake);
      client.watch(wake);
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
    const sent = Promise.all([...(this.#stays.get(id) ?? [])].map(({ sent }) => sent));
    await this.#within(sent, this.#limits.fenceMs);
  }

  open(id: string, version: number): void {
    this.fleet.open(id, version);
    this.changed();
  }

  /** No new requests; resolves when those in flight have ended. @throws `call.deadline`. The engine stays draining either way. */
  async drain(id: string, timeoutMs: number): Promise<void> {
    this.fleet.drain(id);
    const ended = Promise.all([...(this.#stays.get(id) ?? [])].map(({ outcome }) => outcome));
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
    for (const attempt of [...(this.#stays.get(id) ?? [])]) attempt.cancel();
  }
}

function describe(worker: Worker, outcome: Exclude<AttemptOutcome, { kind: "answered" | "cut" }>): string {
  switch (outcome.kind) {
    case "refused":
      return `${worker.url} answered ${outcome.status}`;
    case "abandoned":
      return `${worker.url} stopped answering`;
    case "unreachable":
    case "stale":
    case "broken":
      return `${worker.url}: ${outcome.reason}`;
  }
}
