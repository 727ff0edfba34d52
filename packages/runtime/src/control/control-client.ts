/**
 * This process's side of ClientLink. One stream; every message of a turn in one batch. Invariants:
 * L1 a request is sent again on every new stream until it is answered or its deadline passes; all are idempotent.
 * L2 followers are renewed on every new stream. L3 a batch of a lower epoch than known is dropped. L4 the job id of the
 * first welcome is kept for life, whatever head answers later.
 */
import { type BackoffPolicy, backoffDelayMs, type Clock, type Logger, type Random, SlimeError, type Timer } from "@slime/core";
import type { ClientDown, ClientHello, ClientUp, ClientWelcome } from "@slime/rpc/control";
import type { ActorView } from "../actor-view.js";
import { unbornView } from "../actor-view.js";
import type { WaitOptions } from "../handle-types.js";
import { runtimeLimits } from "../limits.js";
import type { ControlPort, PlacementGroupView } from "../ports.js";
import type { ControlDialer, ControlLink } from "./control-link.js";
import { actorView, failureIn, nodeView, placementGroupView } from "./proto-views.js";
import { type StartWaiting, withinTime } from "./within-time.js";

export interface ControlClientParts {
  readonly dialer: ControlDialer;
  readonly hello: Omit<ClientHello, "jobId"> & { readonly jobId: string | null };
  /** Of an interactive job, asked when it ends. */
  readonly exitCode: () => number;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

export interface ControlClient extends ControlPort {
  /** The first welcome. @throws head.unavailable, peer.incompatible. */
  readonly welcome: (options?: WaitOptions) => Promise<ClientWelcome>;
}

type Request = NonNullable<ClientUp["request"]>;
type Reply = NonNullable<ClientDown["reply"]>;

type ReplyValue<K extends Reply["$case"]> = Extract<Reply, { readonly $case: K }>["value"];

interface Outstanding {
  readonly id: number;
  readonly request: Request;
  readonly done: (reply: Reply) => void;
  readonly failed: (error: unknown) => void;
}

/** A head that takes the stream but does not answer the hello is given up and tried again. */
const greetingMsMax = 10_000;
const reconnect: BackoffPolicy = { firstMs: 50, factor: 1.5, delayMsMax: 1_000, jitter: 0.2, triesMax: Number.POSITIVE_INFINITY };

/** Opens the link at once, and again whenever it ends, until `close`. */
export function controlClient(parts: ControlClientParts): ControlClient {
  const { dialer, clock, log } = parts;
  const outstanding = new Map<number, Outstanding>();
  const actors = new Map<string, ((view: ActorView) => void)[]>();
  const groups = new Map<string, ((view: PlacementGroupView) => void)[]>();
  let nextId = 1;
  let epoch = 0;
  let jobId = parts.hello.jobId ?? "";
  let clusterId = parts.hello.clusterId;
  let state:
    | { kind: "down"; timer: Timer | null }
    | { kind: "greeting"; link: ControlLink; silent: Timer }
    | { kind: "up"; link: ControlLink }
    | { kind: "closed"; error: SlimeError } = { kind: "down", timer: null };
  let attempt = 1;
  let lastReason = "not connected yet";
  let turn: ClientUp[] = [];
  let firstWelcome: ClientWelcome | null = null;
  const welcomed: ((outcome: ClientWelcome | SlimeError) => void)[] = [];

  const push = (message: ClientUp) => {
    if (state.kind !== "up") return;
    if (turn.length === 0) setImmediate(flush);
    turn.push(message);
  };
  const flush = () => {
    const messages = turn;
    turn = [];
    if (state.kind === "up" && messages.length > 0) state.link.write({ epoch, messages });
  };

  const open = () => {
    if (state.kind === "closed") return;
    const link: ControlLink = dialer.open({
      onBatch(batch) {
        if (state.kind === "closed" || state.kind === "down" || state.link !== link) return;
        if (batch.epoch < epoch) return log.warn("control.stale", { epoch: batch.epoch, known: epoch });
        epoch = batch.epoch;
        for (const message of batch.messages) receive(message);
      },
      onEnd(reason) {
        if (state.kind === "closed" || state.kind === "down" || state.link !== link) return;
        lost(reason);
      },
    });
    const silent = clock.after(greetingMsMax, () => {
      if (state.kind !== "greeting" || state.link !== link) return;
      link.end();
      lost(`no welcome within ${greetingMsMax} ms`);
    });
    state = { kind: "greeting", link, silent };
    link.write({ epoch, messages: [{ id: nextId++, request: { $case: "hello", value: { ...parts.hello, clusterId, jobId } } }] });
  };

  const lost = (reason: string) => {
    if (state.kind === "greeting") state.silent.cancel();
    if (state.kind === "up") log.warn("control.lost", { address: dialer.address, reason });
    lastReason = reason;
    attempt++;
    turn = [];
    const delay = backoffDelayMs(reconnect, attempt, parts.random) ?? reconnect.delayMsMax;
    state = { kind: "down", timer: clock.after(delay, open) };
  };

  const receive = (message: ClientDown) => {
    const { reply } = message;
    if (reply === undefined) return;
    if (reply.$case === "welcome") return greeted(reply.value);
    if (state.kind === "greeting" && reply.$case === "failure")
      return refused(
        failureIn(reply.value) ??
          new SlimeError("peer.incompatible", "the head refused this client", { ours: parts.hello.version, theirs: "" }),
      );
    if (reply.$case === "actor") for (const hear of actors.get(reply.value.actorId) ?? []) hear(actorView(reply.value));
    if (reply.$case === "placementGroup")
      for (const hear of groups.get(reply.value.placementGroupId) ?? []) hear(placementGroupView(reply.value));
    const waiting = outstanding.get(message.id);
    if (waiting === undefined) return;
    outstanding.delete(message.id);
    if (reply.$case === "failure") waiting.failed(failureIn(reply.value));
    else waiting.done(reply);
  };

  const greeted = (welcome: ClientWelcome) => {
    if (state.kind !== "greeting") return;
    state.silent.cancel();
    attempt = 1;
    jobId = jobId === "" ? welcome.jobId : jobId;
    clusterId = welcome.clusterId;
    epoch = welcome.epoch;
    state = { kind: "up", link: state.link };
    firstWelcome ??= welcome;
    for (const hear of welcomed.splice(0)) hear(welcome);
    for (const { id, request } of outstanding.values()) push({ id, request });
    for (const actorId of actors.keys()) push({ id: nextId++, request: { $case: "resolveActor", value: { actorId } } });
    for (const placementGroupId of groups.keys())
      push({ id: nextId++, request: { $case: "resolvePlacementGroup", value: { placementGroupId } } });
    log.debug("control.up", { address: dialer.address, epoch, jobId });
  };

  /** Another protocol or cluster, a job that is over: no later try can help. */
  const refused = (error: SlimeError) => {
    if (state.kind === "greeting") {
      state.silent.cancel();
      state.link.end();
    }
    state = { kind: "closed", error };
    dialer.close();
    for (const hear of welcomed.splice(0)) hear(error);
    for (const waiting of [...outstanding.values()]) waiting.failed(error);
    outstanding.clear();
    log.error("control.refused", { address: dialer.address, error: error.message });
  };

  const away = (timeoutMs: number) =>
    new SlimeError(
      "head.unavailable",
      `the head at ${dialer.address} did not answer within ${timeoutMs} ms (${state.kind === "up" ? "connected" : lastReason}); is it running? \`slime-head start\``,
      { address: dialer.address },
    );

  const within = <T>(options: WaitOptions | undefined, start: StartWaiting<T>): Promise<T> => withinTime(clock, options, away, start);

  const ask = (request: Request, options?: WaitOptions): Promise<Reply> => {
    if (state.kind === "closed") return Promise.reject(state.error);
    if (outstanding.size >= runtimeLimits.controlRequestsMax)
      return Promise.reject(
        new SlimeError("wire.limit", `${outstanding.size} requests wait for the head`, {
          what: "requests to the head",
          value: outstanding.size,
          max: runtimeLimits.controlRequestsMax,
        }),
      );
    return within(options, (done, failed) => {
      const id = nextId++;
      outstanding.set(id, { id, request, done, failed });
      push({ id, request });
      return () => void outstanding.delete(id);
    });
  };
  const expect = <K extends Reply["$case"]>(reply: Reply, kind: K): ReplyValue<K> => {
    if (reply.$case === kind) return reply.value as ReplyValue<K>;
    throw new SlimeError("peer.incompatible", `the head answered ${reply.$case} where ${kind} was due`, {
      ours: kind,
      theirs: reply.$case,
    });
  };

  open();
  return {
    welcome: (options) =>
      firstWelcome !== null
        ? Promise.resolve(firstWelcome)
        : within(options, (done, failed) => {
            const hear = (outcome: ClientWelcome | SlimeError) => (outcome instanceof Error ? failed(outcome) : done(outcome));
            welcomed.push(hear);
            return () => void welcomed.splice(welcomed.indexOf(hear), 1);
          }),
    createActor: async (spec, options) => actorView(expect(await ask({ $case: "createActor", value: { spec } }, options), "actor")),
    killActor: async (request, options) => void (await ask({ $case: "killActor", value: request }, options)),
    followActor(actorId, onView) {
      actors.set(actorId, [...(actors.get(actorId) ?? []), onView]);
      ask({ $case: "resolveActor", value: { actorId } }, { timeoutMs: null }).catch((error: unknown) => {
        if (!SlimeError.is(error, "not_found")) return log.warn("control.follow", { actorId, error: String(error) });
        onView({ ...unbornView({ actorId, jobId, className: "", name: "" }), state: "DEAD", creationFailure: error });
      });
    },
    createPlacementGroup: async ({ bundles, ...group }, options) =>
      placementGroupView(
        expect(
          await ask(
            {
              $case: "createPlacementGroup",
              value: { ...group, jobId, bundles: bundles.map((resources) => ({ resources: { ...resources } })) },
            },
            options,
          ),
          "placementGroup",
        ),
      ),
    followPlacementGroup(placementGroupId, onView) {
      groups.set(placementGroupId, [...(groups.get(placementGroupId) ?? []), onView]);
      ask({ $case: "resolvePlacementGroup", value: { placementGroupId } }, { timeoutMs: null }).catch((error: unknown) =>
        log.warn("control.follow", { placementGroupId, error: String(error) }),
      );
    },
    removePlacementGroup: async (placementGroupId, options) =>
      void (await ask({ $case: "removePlacementGroup", value: { placementGroupId } }, options)),
    nodes: async (options) => expect(await ask({ $case: "listNodes", value: {} }, options), "nodes").nodes.map(nodeView),
    kvPut: async ({ key, value, ifAbsent }, options) => {
      const reply = await ask({ $case: "kvPut", value: { key, value: Buffer.from(value), ifAbsent } }, options);
      return { found: reply.$case === "kv" && reply.value.found };
    },
    kvGet: async (key, options) => {
      const { found, value } = expect(await ask({ $case: "kvGet", value: { key } }, options), "kv");
      return found ? value : null;
    },
    kvDelete: async (key, options) => void (await ask({ $case: "kvDelete", value: { key } }, options)),
    kvList: async (prefix, options) => expect(await ask({ $case: "kvList", value: { prefix } }, options), "kv").keys,
    reportPhase: (phase, waitingFor) => push({ id: nextId++, request: { $case: "reportPhase", value: { jobId, phase, waitingFor } } }),
    async close() {
      if (state.kind === "closed") return;
      if (state.kind === "down") state.timer?.cancel();
      else {
        // An interactive job ends at once with this; without it the head would wait for its driver to come back.
        if (parts.hello.jobId === null) push({ id: nextId++, request: { $case: "goodbye", value: { exitCode: parts.exitCode() } } });
        if (state.kind === "greeting") state.silent.cancel();
        flush();
        state.link.end();
      }
      const error = new SlimeError("head.unavailable", "this process has closed its link to the head", { address: dialer.address });
      state = { kind: "closed", error };
      dialer.close();
      for (const waiting of [...outstanding.values()]) waiting.failed(error);
      outstanding.clear();
    },
  };
}
