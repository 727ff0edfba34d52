/**
 * The shell around the reducer: takes inputs in order, makes what they changed durable in groups, then carries the effects out.
 * It knows no transport: links and sessions are handed in as functions, so a whole cluster can run in one process on virtual time.
 */
import { ClusterId, JobId, SlimeError, type Timer } from "@slime/core";
import type { ClientDown, NodeDown } from "@slime/rpc/control";
import type { Head, HeadDependencies, Outlet } from "./head-api.js";
import { headLimits } from "./limits.js";
import { reduce, restore, undo } from "./reduce/reduce.js";
import { failureBytes } from "./reduce/turn.js";
import type { Effect, Outcome } from "./state/effects.js";
import { headState } from "./state/head-state.js";
import type { HeadInput, Times } from "./state/inputs.js";

/**
 * Reads the store (which raises the epoch), rebuilds the state from its records and starts the clockwork. It listens nowhere:
 * links are opened on it by servers or by tests.
 */
export async function openHead(deps: HeadDependencies): Promise<Head> {
  const { store, clock, random, log, events } = deps;
  const stored = await store.open(() => ClusterId.create(random));
  const startedMs = clock.nowMs();
  const times = (): Times => ({ nowMs: stored.meta.headMs + (clock.nowMs() - startedMs), wallMs: clock.wallMs() });
  const first = times();
  const state = headState(
    { address: "", httpAddress: "", eventsEndpoint: "", clusterId: stored.meta.clusterId, epoch: stored.meta.epoch },
    { startedAtMs: first.wallMs, graceUntilHeadMs: stored.meta.epoch === 1 ? 0 : first.nowMs + headLimits.restartGraceMs },
  );

  const nodeOutlets = new Map<string, Outlet<NodeDown>>();
  const clientOutlets = new Map<string, Outlet<ClientDown>>();
  const asked = new Map<number, { readonly resolve: (value: unknown) => void; readonly reject: (error: unknown) => void }>();
  const listeners = new Set<() => void>();
  let links = 0;
  let tokens = 0;
  let readOnly: string | null = null;
  let open = true;
  let wake: { readonly timer: Timer; readonly atMs: number } | null = null;
  /** Outcomes not yet durable, oldest first, with the inputs they answer. */
  let waiting: { readonly input: HeadInput; readonly outcome: Outcome }[] = [];
  let writing: Promise<void> | null = null;

  const take = (input: HeadInput): void => {
    if (!open) return;
    deps.onInput?.(input.kind);
    const outcome = reduce(state, input, times());
    if (outcome.changes.length > 0 && readOnly !== null) {
      undo(state, outcome);
      refuse(input, readOnly);
      return;
    }
    // Also behind a commit under way: what is said follows from changes that may still be lost, and must not overtake what they say.
    if (outcome.changes.length === 0 && writing === null) {
      perform(outcome.effects);
      return;
    }
    waiting.push({ input, outcome });
    writing ??= write();
  };

  /** Group commit: everything that came while the last group was written is the next group. */
  const write = async (): Promise<void> => {
    while (waiting.length > 0) {
      await Promise.resolve(); // the rest of this event-loop turn's inputs join the group
      const group = waiting;
      waiting = [];
      const changes = group.flatMap(({ outcome }) => outcome.changes);
      const from = clock.nowMs();
      try {
        if (changes.length > 0) await store.commit(changes, times().nowMs);
      } catch (error) {
        giveUp(group, error);
        continue;
      }
      if (changes.length > 0) deps.onCommit?.(clock.nowMs() - from, group.length);
      for (const { outcome } of group) perform(outcome.effects); // H1
      if (changes.length > 0) for (const listener of listeners) listener();
    }
    writing = null;
  };

  /** H2: nothing of what could not be written has happened; from now on the head only reads. */
  const giveUp = (group: typeof waiting, error: unknown): void => {
    const undone = [...group, ...waiting];
    waiting = [];
    for (const { outcome } of [...undone].reverse()) undo(state, outcome);
    const reason = error instanceof Error ? error.message : String(error);
    if (readOnly === null) {
      log.error("head.read_only", { error });
      events.publish("head.read_only", { reason });
    }
    readOnly = reason;
    for (const { input, outcome } of undone)
      if (outcome.changes.length > 0) refuse(input, reason, error);
      else perform(outcome.effects);
    for (const listener of listeners) listener();
  };

  const refuse = (input: HeadInput, reason: string, cause?: unknown): void => {
    const error = SlimeError.isAny(cause)
      ? cause
      : new SlimeError("disk.full", `the head only reads since it could not write: ${reason}`, { path: "", needed: null });
    if ("token" in input) settle(input.token, (waiter) => waiter.reject(error));
    else if (input.kind === "client.request" || input.kind === "client.hello") {
      const outcome = {
        kind: "client.send",
        session: input.session,
        id: input.id,
        reply: { $case: "failure", value: failureBytes(error) },
      } as const;
      perform([outcome]);
    }
  };

  const settle = (
    token: number,
    how: (waiter: { readonly resolve: (value: unknown) => void; readonly reject: (error: unknown) => void }) => void,
  ): void => {
    const waiter = asked.get(token);
    asked.delete(token);
    if (waiter !== undefined) how(waiter);
  };

  const perform = (effects: readonly Effect[]): void => {
    for (const effect of effects) {
      switch (effect.kind) {
        case "node.send":
          nodeOutlets.get(effect.link)?.send({ message: effect.message });
          break;
        case "node.close":
          nodeOutlets.get(effect.link)?.close();
          nodeOutlets.delete(effect.link);
          break;
        case "client.send":
          clientOutlets.get(effect.session)?.send({ id: effect.id, reply: effect.reply });
          break;
        case "client.close":
          clientOutlets.get(effect.session)?.close();
          clientOutlets.delete(effect.session);
          break;
        case "answer":
          settle(effect.token, (waiter) => waiter.resolve(effect.value));
          break;
        case "refuse":
          settle(effect.token, (waiter) => waiter.reject(effect.error));
          break;
        case "event":
          events.publish(effect.name, effect.fields as never);
          break;
        case "wake":
          wakeAt(effect.atMs);
          break;
      }
    }
  };

  const tick = (): void => {
    wake = null;
    if (!open) return;
    take({ kind: "tick" });
    wakeAt(times().nowMs + headLimits.tickMs);
  };

  /** One timer, for the earliest time anybody asked for; every tick asks for the next. */
  const wakeAt = (atMs: number): void => {
    if (wake !== null && wake.atMs <= atMs) return;
    wake?.timer.cancel();
    wake = { atMs, timer: clock.after(Math.max(0, atMs - times().nowMs), tick) };
  };

  const restored = restore(state, stored.records, first);
  if (restored.changes.length > 0) await store.commit(restored.changes, first.nowMs);
  perform(restored.effects);
  wakeAt(first.nowMs + headLimits.tickMs);

  const head: Head = {
    clusterId: state.clusterId,
    epoch: state.epoch,
    state,
    announce: (where) => void Object.assign(state, where),
    nowMs: () => times().nowMs,
    readOnly: () => readOnly,
    openNode(outlet) {
      const link = `n${++links}`;
      let nodeId: string | null = null;
      nodeOutlets.set(link, outlet);
      return {
        receive(batch) {
          for (const { message } of batch.messages) {
            if (message === undefined) continue;
            if (message.$case === "hello") {
              nodeId = message.value.nodeId;
              take({ kind: "node.hello", link, hello: message.value, epoch: batch.epoch });
            } else if (nodeId !== null) take({ kind: "node.message", link, nodeId, message });
          }
        },
        closed() {
          nodeOutlets.delete(link);
          if (nodeId !== null) take({ kind: "node.closed", link, nodeId });
        },
      };
    },
    openClient(outlet) {
      const session = `c${++links}`;
      clientOutlets.set(session, outlet);
      return {
        receive(batch) {
          for (const { id, request } of batch.messages) {
            if (request === undefined) continue;
            if (request.$case === "hello" && !state.sessions.has(session))
              take({ kind: "client.hello", session, id, hello: request.value, newJobId: JobId.create(random) });
            else take({ kind: "client.request", session, id, request });
          }
        },
        closed() {
          clientOutlets.delete(session);
          take({ kind: "client.closed", session });
        },
      };
    },
    ask(request) {
      const token = ++tokens;
      return new Promise((resolve, reject) => {
        if (!open) return reject(new SlimeError("head.unavailable", "the head is stopping", { address: state.address }));
        asked.set(token, { resolve, reject });
        take({ ...request, token } as HeadInput);
      });
    },
    onChange(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    async close() {
      if (!open) return;
      open = false;
      wake?.timer.cancel();
      if (writing !== null) await writing;
      for (const [token] of asked)
        settle(token, (waiter) => waiter.reject(new SlimeError("head.unavailable", "the head stopped", { address: state.address })));
      await store.close();
    },
    [Symbol.asyncDispose]: () => head.close(),
  };
  return head;
}
