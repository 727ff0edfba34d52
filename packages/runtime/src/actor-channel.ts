/**
 * All calls of this process to one actor: a queue, at most one connection, and what the head says of the actor.
 * Pure of I/O: dialling, time and chance are given. Invariants:
 * C1 calls leave in the order they were made (urgent ones excepted); what waits for its arguments holds back later ones.
 * C2 every call settles exactly once. C3 a call sent to a life that ended is sent again only if it has retries left, in its
 * old place and under its old key. C4 at most `pendingCallsMax` calls wait or run. C5 nothing is sent to a life that is not the newest known.
 */
import { type BackoffPolicy, backoffDelayMs, SlimeError, type Timer } from "@slime/core";
import type { Peer } from "@slime/rpc";
import { type ActorView, deathError, deathText, newerView, unavailable } from "./actor-view.js";
import {
  type ActorChannel,
  allowMany,
  type ChannelCall,
  type ChannelParts,
  cancelled,
  type Entry,
  InFlight,
  inOrder,
  neverStarted,
  type PreparedArgs,
  wireOptions,
} from "./channel-call.js";
import { runtimeLimits } from "./limits.js";

interface Open {
  readonly kind: "open";
  readonly incarnation: number;
  readonly peer: Peer;
  readonly inFlight: InFlight;
}

/** Each phase owns its resources; `ended` owns none. */
type Phase =
  | { readonly kind: "waiting" }
  | { readonly kind: "dialling"; readonly incarnation: number; readonly attempt: number; readonly timer: Timer | null }
  | Open
  | { readonly kind: "ended"; readonly error: unknown };

const redial: BackoffPolicy = { firstMs: 20, factor: 1.5, delayMsMax: 1_000, jitter: 0.2, triesMax: Number.POSITIVE_INFINITY };

/** The channel of one actor in this process, in whatever state `first` says the actor is. */
export function actorChannel(first: ActorView, parts: ChannelParts): ActorChannel {
  const { clock } = parts;
  let view = first;
  let phase: Phase = { kind: "waiting" };
  let queue: Entry[] = [];
  const stranded = new Set<Entry>();
  const listeners = new Set<(view: ActorView) => void>();
  let sequence = 0;
  let pending = 0;
  let following = false;
  let reporting: Timer | null = null;

  const settle = (entry: Entry): boolean => {
    if (entry.done) return false;
    entry.done = true;
    pending--;
    entry.timer?.cancel();
    entry.unlisten?.();
    stranded.delete(entry);
    if (entry.prepared !== null && entry.prepared !== "preparing") entry.prepared.release?.();
    return true;
  };
  const fail = (entry: Entry, error: unknown) => {
    if (settle(entry)) entry.call.fail(error);
  };
  const succeed = (entry: Entry, value: unknown) => {
    if (settle(entry)) entry.call.ok(value);
  };

  /** A call that does not leave at once has its own deadline and its own ear for cancellation. */
  const guard = (entry: Entry) => {
    const { call } = entry;
    if (entry.deadlineAt !== null && entry.timer === null) {
      const timeoutMs = call.timeoutMs ?? 0;
      entry.timer = clock.after(entry.deadlineAt - clock.nowMs(), () => {
        const what = `${call.method} of ${view.className} ${view.actorId} (${view.state}${view.waiting.length === 0 ? "" : `: ${view.waiting.join("; ")}`})`;
        fail(entry, new SlimeError("call.deadline", `${what} did not finish within ${timeoutMs} ms`, { what, timeoutMs }));
        drain();
      });
    }
    const { signal } = call;
    if (signal !== undefined && entry.unlisten === null) {
      const onAbort = () => {
        fail(entry, cancelled(call.method, signal.reason));
        drain();
      };
      signal.addEventListener("abort", onAbort, { once: true });
      entry.unlisten = () => signal.removeEventListener("abort", onAbort);
    }
  };

  const submit = (call: ChannelCall): void => {
    if (phase.kind === "ended") return call.fail(phase.error);
    if (call.signal?.aborted) return call.fail(cancelled(call.method, call.signal.reason));
    if (call.signal !== undefined) allowMany(call.signal);
    if (pending >= parts.pendingCallsMax && !call.urgent) {
      const { actorId, className } = view;
      return call.fail(
        new SlimeError(
          "actor.busy",
          `${pending} calls wait for ${className} ${actorId}; await some before making more, or raise pendingCallsMax`,
          { actorId, pending, pendingMax: parts.pendingCallsMax },
        ),
      );
    }
    pending++;
    const sinceMs = clock.nowMs();
    const deadlineAt = call.timeoutMs === null ? null : sinceMs + call.timeoutMs;
    const entry: Entry = {
      call,
      sequence: sequence++,
      sinceMs,
      deadlineAt,
      retriesLeft: call.retries,
      prepared: null,
      timer: null,
      unlisten: null,
      done: false,
      sending: 0,
      slot: -1,
    };
    if (phase.kind === "open" && (queue.length === 0 || call.urgent) && prepareNow(entry)) return send(entry, phase);
    if (entry.done) return;
    if (entry.prepared === null) entry.call = { ...call, args: parts.keep(call.args) };
    guard(entry);
    if (call.urgent) queue.unshift(entry);
    else queue.push(entry);
    if (phase.kind === "waiting") follow();
    watch(runtimeLimits.waitReportFirstMs);
  };

  /** Says whom calls wait for that cannot leave: after a little, and every now and then. One timer, however many wait. */
  const watch = (afterMs: number): void => {
    if (reporting !== null || phase.kind === "open") return;
    reporting = clock.after(afterMs, () => {
      reporting = null;
      const [first] = queue.filter((entry) => !entry.done);
      if (first === undefined || phase.kind === "open" || phase.kind === "ended") return;
      const { className, actorId, state, waiting } = view;
      const why = waiting.length === 0 ? "" : `: ${waiting.join("; ")}`;
      parts.log.warn("runtime.waiting", {
        for: `${className} ${actorId}, so that it can be asked for ${first.call.method}; it is ${state}${why}`,
        calls: queue.length,
        waitedMs: Math.round(clock.nowMs() - first.sinceMs),
      });
      watch(runtimeLimits.waitReportMs);
    });
  };

  /** True when the arguments are ready at once; otherwise `drain` follows when they are. */
  const prepareNow = (entry: Entry): boolean => {
    if (entry.prepared !== null) return entry.prepared !== "preparing";
    try {
      const prepared = parts.prepare(entry.call.args);
      if (!(prepared instanceof Promise)) {
        entry.prepared = prepared;
        return true;
      }
      entry.prepared = "preparing";
      prepared
        .then(
          (ready) => {
            entry.prepared = ready;
            if (entry.done) ready.release?.();
          },
          (error: unknown) => fail(entry, error),
        )
        .then(drain);
    } catch (error) {
      fail(entry, error);
    }
    return false;
  };

  const send = (entry: Entry, open: Open): void => {
    const { call } = entry;
    const { args } = entry.prepared as PreparedArgs;
    if (!call.wantsReply) {
      try {
        open.peer.send(
          call.method,
          args,
          call.traceId === undefined ? { urgent: call.urgent } : { urgent: call.urgent, traceId: call.traceId },
        );
        // What was put in the store for it stays: nobody says when it was read.
        entry.prepared = null;
        succeed(entry, undefined);
      } catch (error) {
        fail(entry, error);
      }
      return;
    }
    entry.timer?.cancel();
    entry.timer = null;
    const sending = ++entry.sending;
    open.inFlight.add(entry);
    open.peer.call(call.method, args, wireOptions(entry, clock.nowMs())).then(
      (value) => {
        if (entry.sending !== sending) return;
        open.inFlight.remove(entry);
        succeed(entry, value);
      },
      (error: unknown) => {
        if (entry.sending !== sending) return;
        if (open.peer.ended && SlimeError.is(error, "wire.broken")) return disconnected(open);
        open.inFlight.remove(entry);
        if (neverStarted(error, view.actorId)) return strand(entry);
        fail(entry, call.signal?.aborted === true && error === call.signal.reason ? cancelled(call.method, error) : error);
      },
    );
  };

  const drain = (): void => {
    let at = 0;
    while (phase.kind === "open" && at < queue.length) {
      const entry = queue[at] as Entry;
      if (!entry.done && !prepareNow(entry) && !entry.done) break;
      at++;
      if (!entry.done) send(entry, phase);
    }
    if (at > 0) queue = queue.slice(at);
    else if (queue.length > 2 * pending + 16) queue = queue.filter((entry) => !entry.done);
  };

  /** Calls of a life that is over: those with retries left go back to their old place (C3), the rest are returned. */
  const takeBack = (open: Open): Entry[] => {
    const again: Entry[] = [];
    const rest: Entry[] = [];
    for (const entry of open.inFlight.takeAll()) {
      entry.sending++;
      if (entry.done) continue;
      if (entry.retriesLeft > 0) {
        entry.retriesLeft--;
        guard(entry);
        again.push(entry);
      } else rest.push(entry);
    }
    queue = [...again, ...queue].sort(inOrder);
    return rest;
  };

  const disconnected = (open: Open) => {
    if (phase !== open) return;
    phase = { kind: "waiting" };
    for (const entry of takeBack(open)) strand(entry);
    follow();
    proceed();
  };

  /** Waits a little for the head's word on how the actor died, so that the error can say so. */
  const strand = (entry: Entry) => {
    entry.timer?.cancel();
    const left = entry.deadlineAt === null ? Number.POSITIVE_INFINITY : entry.deadlineAt - clock.nowMs();
    entry.timer = clock.after(Math.min(runtimeLimits.verdictMsMax, left), () =>
      fail(entry, unavailable(view, "its connection broke while this call ran, and the head has not said why yet")),
    );
    stranded.add(entry);
    guard(entry);
  };
  const release = (error: unknown) => [...stranded].forEach((entry) => fail(entry, error));

  /** Moves the phase to where the view says it should be. The only way out of `waiting`. */
  const proceed = () => {
    if (phase.kind === "ended") return;
    const current = phase.kind === "open" || phase.kind === "dialling" ? phase.incarnation : 0;
    if (view.state === "DEAD") return end(deathError(view));
    if (view.state === "ALIVE" && view.socket !== null) {
      if (current === view.incarnation) return;
      leave(`a newer life of ${view.actorId} runs`);
      return dial(view.socket, view.incarnation, 1);
    }
    if (view.state === "RESTARTING") leave("it restarts");
  };

  const leave = (reason: string) => {
    const before = phase;
    phase = { kind: "waiting" };
    if (before.kind === "dialling") before.timer?.cancel();
    if (before.kind !== "open") return;
    void before.peer.close({ reason });
    for (const entry of takeBack(before)) fail(entry, unavailable(view, deathText(view.death)));
  };

  const dial = (socket: string, incarnation: number, attempt: number) => {
    const mine: Phase = { kind: "dialling", incarnation, attempt, timer: null };
    phase = mine;
    parts.dial(socket, view.actorId, incarnation).then(
      (peer) => {
        if (phase !== mine) return void peer.close({ reason: "no longer wanted" });
        const open = { kind: "open" as const, incarnation, peer, inFlight: new InFlight() };
        phase = open;
        release(unavailable(view, "its connection broke while this call ran; the actor lives on"));
        void peer.closed.then(() => disconnected(open));
        drain();
      },
      (error: unknown) => {
        if (phase !== mine) return;
        parts.log.debug("actor.dial", { actorId: view.actorId, incarnation, attempt, error: String(error) });
        follow();
        const delay = backoffDelayMs(redial, attempt + 1, parts.random) ?? redial.delayMsMax;
        phase = { ...mine, timer: clock.after(delay, () => dial(socket, incarnation, attempt + 1)) };
      },
    );
  };

  const end = (error: unknown) => {
    if (phase.kind === "ended") return;
    reporting?.cancel();
    if (phase.kind === "dialling") phase.timer?.cancel();
    const open = phase.kind === "open" ? phase : null;
    phase = { kind: "ended", error };
    const left = [...(open?.inFlight.takeAll() ?? []), ...stranded, ...queue].sort((a, b) => a.sequence - b.sequence);
    queue = [];
    for (const entry of left) {
      entry.sending++;
      fail(entry, error);
    }
    if (open !== null) void open.peer.close({ reason: "the actor is dead" });
  };

  const heard = (said: ActorView) => {
    const before = view;
    view = newerView(view, said);
    if (view === before) return;
    if (view.state === "RESTARTING" || view.incarnation > before.incarnation) release(unavailable(view, deathText(view.death)));
    if (view.state === "DEAD") release(deathError(view));
    proceed();
    for (const listener of [...listeners]) listener(view);
  };

  const follow = () => {
    if (following) return;
    following = true;
    parts.follow(heard);
  };

  proceed();
  return {
    submit,
    heard,
    follow,
    view: () => view,
    pending: () => pending,
    onView(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    async close() {
      const open = phase.kind === "open" ? phase.peer : null;
      end(new SlimeError("call.cancelled", "this process has shut its runtime down", { what: "shutdown" }));
      await open?.close({ reason: "shutdown" });
    },
  };
}
