import type { Clock, Logger } from "@slime/core";
import type { EngineWatch } from "./engine-watch.js";
import type { Fleet, StayEnd, Worker } from "./fleet.js";
import type { Liveness } from "./liveness.js";
import type { Attempt, AttemptOutcome, ForwardRequest, Presence, ReplySink, Transport } from "./transport.js";

/** A request at an engine: under way there, and counted. */
export interface Stay extends Attempt {
  /** Gives it up for no fault of the engine's. */
  readonly release: () => void;
}

/** Requests under way, by engine. Y1: what the fleet picked is counted as ended exactly once, when it is over at the engine. */
export class Stays {
  readonly #fleet: Fleet;
  readonly #watch: EngineWatch;
  readonly #transport: Transport;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #staleMsMax: number;
  readonly #stays = new Map<string, Set<Stay>>();
  /** Answers by the first digit of their status. */
  readonly answers = [0, 0, 0, 0, 0, 0];

  constructor(
    fleet: Fleet,
    watch: EngineWatch,
    transport: Transport,
    context: { readonly clock: Clock; readonly log: Logger; readonly staleMsMax: number },
  ) {
    this.#staleMsMax = context.staleMsMax;
    this.#fleet = fleet;
    this.#watch = watch;
    this.#transport = transport;
    this.#clock = context.clock;
    this.#log = context.log;
  }

  at(id: string): readonly Stay[] {
    return [...(this.#stays.get(id) ?? [])];
  }

  /** Everything at this engine goes elsewhere, or is cut where its answer has begun. */
  giveUp(id: string): void {
    for (const stay of this.at(id)) stay.cancel();
  }

  /** Sends to an engine just picked; keeps its count until the request has ended there. */
  send(worker: Worker, request: ForwardRequest, sink: ReplySink, passRefusals: boolean, client: Presence): Stay {
    const noting = new NotingSink(sink, this.#watch.liveness(worker.id), this.#clock);
    const attempt = this.#transport.send(worker.url, request, noting, passRefusals);
    const sentMs = this.#clock.nowMs();
    let released = false;
    let stays = this.#stays.get(worker.id);
    if (stays === undefined) this.#stays.set(worker.id, (stays = new Set()));
    const stay: Stay = {
      sent: attempt.sent,
      cancel: attempt.cancel,
      release: () => {
        released = true;
        attempt.cancel();
      },
      outcome: attempt.outcome.then((reported) => {
        const outcome = this.#judged(reported, this.#clock.nowMs() - sentMs);
        stays.delete(stay);
        if (stays.size === 0) this.#stays.delete(worker.id);
        this.#ended(worker, outcome, released || client.left);
        return outcome;
      }),
    };
    stays.add(stay);
    return stay;
  }

  /** A kept connection that closes long after it was given a request was not closed for being idle. */
  #judged(outcome: AttemptOutcome, ms: number): AttemptOutcome {
    return outcome.kind === "stale" && ms > this.#staleMsMax ? { kind: "broken", reason: outcome.reason } : outcome;
  }

  #ended(worker: Worker, outcome: AttemptOutcome, isForgiven: boolean): void {
    if (outcome.kind === "answered" || outcome.kind === "refused") {
      const digit = Math.floor(outcome.status / 100);
      this.answers[digit] = (this.answers[digit] ?? 0) + 1;
    }
    const how = isForgiven ? "abandoned" : endOf(outcome);
    const before = worker.health.kind;
    const reason = "reason" in outcome ? outcome.reason : "";
    this.#fleet.ended(worker.id, how, reason);
    if (worker.health.kind !== before) this.#log.warn("router.worker_ejected", { worker: worker.url, reason });
    // Who refuses connections is not paused but gone.
    if (how === "unreachable" && this.#watch.isPaused(worker.id)) this.#watch.resume(worker.id);
    if ((how === "broken" || how === "unreachable") && this.#fleet.get(worker.id) === worker) this.#watch.doubt(worker.id);
  }
}

/** Passes an answer on and notes that its engine lives. */
class NotingSink implements ReplySink {
  readonly #sink: ReplySink;
  readonly #liveness: Liveness;
  readonly #clock: Clock;

  constructor(sink: ReplySink, liveness: Liveness, clock: Clock) {
    this.#sink = sink;
    this.#liveness = liveness;
    this.#clock = clock;
  }

  begin(status: number, headers: readonly string[], length: number | null): void {
    this.#liveness.progressed(this.#clock.nowMs());
    this.#sink.begin(status, headers, length);
  }

  data(chunk: Buffer, resume: () => void): boolean {
    this.#liveness.progressed(this.#clock.nowMs());
    return this.#sink.data(chunk, resume);
  }

  end(): void {
    this.#sink.end();
  }

  cut(reason: string): void {
    this.#sink.cut(reason);
  }
}

/** What an outcome says of its engine. */
function endOf(outcome: AttemptOutcome): StayEnd {
  switch (outcome.kind) {
    case "answered":
    case "refused":
      return "answered";
    case "cut":
    case "broken":
      return "broken";
    case "unreachable":
      return "unreachable";
    case "stale":
    case "abandoned":
      return "abandoned";
  }
}
