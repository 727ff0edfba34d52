import type { RouterPolicy } from "@slime/backend";
import { backoffDelayMs, type Clock, invariant, type Logger, type Random, SlimeError } from "@slime/core";
import { EngineWatch } from "./engine-watch.js";
import { Fleet, isAble, type Pair, type Worker } from "./fleet.js";
import type { RouterLimits } from "./options.js";
import { HeldReply, pairOutcome } from "./pair-attempt.js";
import { type Pairable, pairable, withBootstrap } from "./pairing.js";
import { type CacheAwareOptions, defaultCacheAware } from "./policies/cache-aware.js";
import { makePolicy } from "./policies/index.js";
import { noHint } from "./policies/policy.js";
import { isGeneration, routeHint } from "./route-hint.js";
import { Stays } from "./stays.js";
import type { AttemptOutcome, ForwardRequest, Presence, ReplySink, Transport } from "./transport.js";
import { WaitingRoom } from "./waiting-room.js";

export interface DispatcherCounts {
  readonly requests: number;
  readonly failures: number;
  readonly retries: number;
  /** Streams that broke after their first byte. */
  readonly cut: number;
  /** Requests that failed at their last try. */
  readonly exhausted: number;
  /** Answers by the first digit of their status. */
  readonly answers: readonly number[];
}

/** Who answers: told to the sink's owner before `begin`. */
export type Chosen = (worker: Worker) => void;

/** A request, and who waits for its answer. */
interface Asked {
  readonly request: ForwardRequest;
  /** What a pair is told; null when the request needs none. */
  readonly split: Pairable | null;
  readonly sink: ReplySink;
  readonly chosen: Chosen;
  readonly client: Presence;
}

/** How a try went, and who is to blame if it went wrong. */
interface Tried {
  readonly outcome: AttemptOutcome;
  readonly by: Worker;
}

const none: ReadonlySet<string> = new Set();

/**
 * The life of a request: an engine is found or waited for, tried, and another tried when that is safe.
 * P1: a request goes to an engine only in the turn in which the fleet picked it, so never to a fenced or unhealthy one.
 * P2: after the first byte of an answer there is no second try. P3: every request ends: answered, passed on as refused, or failed with a reason.
 * P4: waiting is bounded in number and time. P5: an engine that is out and sends nothing loses the requests that still wait for their first
 * byte there to other engines; streams from it are cut with an error. P6: a pair answers as one: the decode engine's answer, unless the
 * prefill engine fails; what one of them fails for, the other is not marked for.
 */
export class Dispatcher {
  readonly fleet: Fleet;
  readonly watch: EngineWatch;
  readonly #transport: Transport;
  readonly #limits: RouterLimits;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #log: Logger;
  readonly #wants: "nothing" | "key" | "prompt";
  readonly #waiting: WaitingRoom;
  readonly #stays: Stays;
  #counts = { requests: 0, failures: 0, retries: 0, cut: 0, exhausted: 0 };

  constructor(
    policy: RouterPolicy,
    transport: Transport,
    limits: RouterLimits,
    context: { readonly clock: Clock; readonly random: Random; readonly log: Logger; readonly cache?: CacheAwareOptions },
  ) {
    const { clock, random, log, cache = defaultCacheAware } = context;
    const whole = makePolicy(policy, random, cache);
    // A decode engine is sent the prompt's cache, whatever it holds itself.
    const decode = makePolicy(policy === "cache_aware" ? "least_in_flight" : policy, random, cache);
    this.fleet = new Fleet({ whole, prefill: makePolicy(policy, random, cache), decode }, limits.brokenMax);
    this.watch = new EngineWatch(this.fleet, transport, limits, context, {
      giveUp: (id) => this.#stays.giveUp(id),
      admitted: () => this.changed(),
    });
    this.#stays = new Stays(this.fleet, this.watch, transport, { clock, log, staleMsMax: limits.staleMsMax });
    this.#wants = whole.wants;
    this.#transport = transport;
    this.#limits = limits;
    this.#clock = clock;
    this.#random = random;
    this.#log = log;
    this.#waiting = new WaitingRoom(clock);
  }

  get counts(): DispatcherCounts {
    return { ...this.#counts, answers: this.#stays.answers };
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  /** Requests may have become possible. Call after anything that opens or admits an engine. */
  changed(): void {
    if (this.fleet.able > 0) this.#waiting.wakeAll();
  }

  /**
   * Serves one request to its end, silently when the client leaves.
   * @throws `engine.unavailable` when no engine could take it, `wire.limit` when too many wait, `codec.refused` when it is for a pair that
   * cannot be told of it; nothing was passed on then.
   */
  async handle(request: ForwardRequest, sink: ReplySink, chosen: Chosen, client: Presence): Promise<void> {
    this.#counts.requests++;
    const split = this.fleet.isSplit && isGeneration(request) ? pairable(request.body, this.#limits.pairBatchMax) : null;
    const hint = this.#wants === "nothing" ? noHint : routeHint(request, this.#wants, this.#limits);
    const asked: Asked = { request, split, sink, chosen, client };
    let tried: ReadonlySet<string> = none;
    let last = "";
    let until: number | null = null;
    for (let attempt = 1; !client.left; ) {
      const pair = split === null ? null : this.fleet.pickPair(tried, hint);
      const picked = pair ?? this.fleet.pick(tried, hint, split === null ? "all" : "regular");
      if (picked === null) {
        until ??= this.#clock.nowMs() + this.#limits.waitMs;
        await this.#wait(until, client);
        continue;
      }
      until = null;
      const isLast = attempt === this.#limits.retry.triesMax;
      const { outcome, by } = await ("decode" in picked ? this.#tryPair(picked, asked, isLast) : this.#tryAt(picked, asked, isLast));
      if (outcome.kind === "answered" || client.left) return;
      if (outcome.kind === "cut") {
        this.#counts.cut++;
        this.#counts.failures++;
        this.#log.warn("router.stream_cut", { request: request.id, worker: by.url, reason: outcome.reason });
        return;
      }
      last = describe(by, outcome);
      attempt++;
      const delay = backoffDelayMs(this.#limits.retry, attempt, this.#random);
      if (delay === null) this.#counts.exhausted++;
      if (delay === null) this.#fail(`all ${this.#limits.retry.triesMax} tries failed; the last: ${last}`);
      this.#counts.retries++;
      if (outcome.kind === "stale") continue;
      this.#log.warn("router.attempt_failed", { request: request.id, worker: by.url, attempt: attempt - 1, reason: last });
      tried = new Set([...tried, by.id]);
      const untried = this.fleet.workers.some((other) => isAble(other) && other.role.kind === by.role.kind && !tried.has(other.id));
      if (!untried) await this.#waiting.pause(delay, client);
    }
  }

  #fail(reason: string): never {
    this.#counts.failures++;
    throw new SlimeError("engine.unavailable", `no engine could answer: ${reason}`, { engine: "any", reason });
  }

  async #tryAt(worker: Worker, { request, sink, chosen, client }: Asked, passRefusals: boolean): Promise<Tried> {
    chosen(worker);
    const stay = this.#stays.send(worker, request, sink, passRefusals, client);
    client.watch(stay.cancel);
    const outcome = await stay.outcome;
    client.watch(null);
    return { outcome, by: worker };
  }

  /** P6. Both get the same body at once; the prefill engine ends when the decode engine has fetched the prompt's cache. */
  async #tryPair({ prefill, decode }: Pair, { request, split, sink, chosen, client }: Asked, passRefusals: boolean): Promise<Tried> {
    const { role } = prefill;
    invariant(role.kind === "prefill" && split !== null, "a pair has a prefill engine and a body that it can be told in");
    const both = { ...request, body: withBootstrap(split, prefill.url, role.bootstrapPort, this.#random) };
    const held = new HeldReply(this.#limits.refusalBytesMax);
    chosen(decode);
    const first = this.#stays.send(prefill, both, held, passRefusals, client);
    const second = this.#stays.send(decode, both, sink, passRefusals, client);
    client.watch(() => {
      first.cancel();
      second.cancel();
    });
    const { outcome, by } = await pairOutcome(first, second);
    client.watch(null);
    if (by === "decode") return { outcome, by: decode };
    if (outcome.kind !== "answered" || client.left) return { outcome, by: prefill };
    chosen(prefill);
    if (held.passTo(sink)) return { outcome, by: prefill };
    const reason = `its answer of status ${outcome.status} is longer than refusalBytesMax (${this.#limits.refusalBytesMax} bytes)`;
    return { outcome: { kind: "broken", reason }, by: prefill };
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
    await this.#waiting.turn(left, client);
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
    this.watch.forget(id);
    this.#transport.forget(worker.url);
    if (worker.health.kind !== "healthy") this.#stays.giveUp(id);
    this.#log.info("router.worker_removed", { worker: worker.url, id });
  }

  /** Closes an engine to new requests; resolves when those on their way have left for it. */
  async fence(id: string): Promise<void> {
    this.fleet.fence(id);
    this.watch.suspend(id, "fenced");
    const sent = Promise.all(this.#stays.at(id).map(({ sent }) => sent));
    await this.#within(sent, this.#limits.fenceMs);
  }

  open(id: string, version: number): void {
    this.fleet.open(id, version);
    this.watch.resume(id);
    this.changed();
  }

  /** No new requests; resolves when those in flight have ended. @throws `call.deadline`. The engine stays draining either way. */
  async drain(id: string, timeoutMs: number): Promise<void> {
    this.fleet.drain(id);
    const ended = Promise.all(this.#stays.at(id).map(({ outcome }) => outcome));
    if (!(await this.#within(ended, timeoutMs))) {
      const what = `draining ${this.fleet.get(id)?.url ?? id} (${this.#stays.at(id).length} in flight)`;
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

  /** Asks an engine how it is and acts on it. */
  probe(id: string): Promise<void> {
    return this.watch.probe(id);
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
