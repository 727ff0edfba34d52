import { type Clock, type Logger, type Random, SlimeError } from "@slime/core";
import { type CodecHooks, encodeValue, type Hello, type ObjectDescriptor, type Peer, type PeerOptions } from "@slime/rpc";
import { actorChannel } from "./actor-channel.js";
import { type ActorView, unbornView } from "./actor-view.js";
import { prepareArgs } from "./call-args.js";
import type { ActorChannel } from "./channel-call.js";
import { type ActorPayload, runtimeHooks } from "./codec-hooks.js";
import { type HandleParts, handleParts, makeHandle } from "./handle.js";
import type { CallOptions } from "./handle-types.js";
import { runtimeLimits } from "./limits.js";
import { ObjectRef, type RefSource, refState, settleRef } from "./object-ref.js";
import type { ControlPort, ValueStore } from "./ports.js";
import { StoredValue, snapshot } from "./values.js";
import { waitUntil } from "./wait-until.js";

/** What a runtime is built from; tests give memory for each. */
export interface RuntimeParts {
  readonly jobId: string;
  readonly hello: Hello;
  /** Made on first use: an actor host that only answers calls never loads gRPC. */
  readonly control: () => Promise<ControlPort>;
  readonly connect: (socket: string, options: PeerOptions) => Promise<Peer>;
  readonly store: (hooks: CodecHooks) => ValueStore;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** How this process calls one actor. */
export interface CallDefaults {
  readonly callTimeoutMs: number | null;
  readonly pendingCallsMax: number;
}

/** One process's share of the cluster: its channels to actors, its link to the head, its door to the store. */
export interface Runtime {
  readonly parts: RuntimeParts;
  readonly hooks: CodecHooks;
  readonly store: ValueStore;
  readonly control: () => Promise<ControlPort>;
  readonly nextId: (kind: "obj" | "call") => string;
  /** The handle of an actor, one per process. The head is not asked about a new one before `created`. */
  readonly adopt: (view: ActorView, defaults: CallDefaults, created?: Promise<unknown>) => object;
  readonly channelOf: (actorId: string) => ActorChannel | undefined;
  readonly kill: (actorId: string, options: { readonly graceMs?: number; readonly timeoutMs?: number | null }) => Promise<void>;
  readonly encodeArgs: (args: readonly unknown[]) => Promise<Uint8Array>;
  readonly fetch: (ref: ObjectRef<unknown>) => Promise<unknown>;
  readonly close: () => Promise<void>;
}

/** Methods that always have room, here and in the actor. */
const urgentMethods: ReadonlySet<string> = new Set(["health", "abort", "slime.ping", "slime.describe"]);

/** A runtime from its parts; nothing is connected before somebody is called. */
export function createRuntime(parts: RuntimeParts): Runtime {
  const { clock, random, log } = parts;
  const channels = new Map<string, { readonly channel: ActorChannel; readonly handle: object; readonly defaults: CallDefaults }>();
  const hooks = runtimeHooks({
    payloadOf(value) {
      const channel = handleParts(value)?.channel;
      return channel === undefined ? undefined : payloadOf(channel.view(), channels.get(channel.view().actorId)?.defaults ?? noDefaults);
    },
    handleOf: (payload) => adopt(viewOf(payload), payload),
  });
  const machine = parts.store(hooks);
  // Freeing is housekeeping: what could not be freed now ends with the job.
  const store: ValueStore = {
    ...machine,
    free: (objects) =>
      machine.free(objects).catch((error: unknown) => log.warn("runtime.not_freed", { objects: objects.length, error: String(error) })),
  };
  let control: Promise<ControlPort> | undefined;
  const getControl = () => (control ??= parts.control());

  // Ids of this process: a random half and a counter, so that a call costs no random bytes.
  const half = Array.from(random.bytes(4), (byte) => byte.toString(16).padStart(2, "0")).join("");
  let counter = 0;
  const nextId = (kind: "obj" | "call") => `${kind}_${half}${(counter++ % 0x1_0000_0000).toString(16).padStart(8, "0")}`;

  const dial = async (socket: string, actorId: string, incarnation: number): Promise<Peer> => {
    const peer = await parts.connect(socket, {
      hello: parts.hello,
      hooks,
      clock,
      log,
      callTimeoutMs: null,
      heartbeat: null,
      helloTimeoutMs: runtimeLimits.helloTimeoutMs,
    });
    const { who } = peer.remote;
    if (who.id === actorId && who.incarnation === incarnation) return peer;
    await peer.close({ reason: "another life of this actor was wanted" });
    throw new SlimeError("actor.stale", `${socket} is ${who.id}#${who.incarnation}, wanted ${actorId}#${incarnation}`, {
      actorId,
      incarnation,
      current: who.incarnation,
    });
  };

  function adopt(view: ActorView, defaults: CallDefaults, created: Promise<unknown> = Promise.resolve()): object {
    const known = channels.get(view.actorId);
    if (known !== undefined) {
      // A handle that came over a wire may be older than what the head has said since.
      if (view.incarnation > known.channel.view().incarnation) known.channel.heard(view);
      return known.handle;
    }
    const channel = actorChannel(view, {
      dial,
      prepare: (args) => prepareArgs(args, store),
      keep: (args) => snapshot(args) as readonly unknown[],
      follow: (onView) =>
        void created
          .then(getControl)
          .then((head) => head.followActor(view.actorId, onView))
          .catch((error: unknown) => log.warn("runtime.no_head", { actorId: view.actorId, error: String(error) })),
      clock,
      random,
      log,
      pendingCallsMax: defaults.pendingCallsMax,
    });
    const handle = makeHandle(handlePartsOf(channel, defaults));
    channels.set(view.actorId, { channel, handle, defaults });
    return handle;
  }

  const handlePartsOf = (channel: ActorChannel, defaults: CallDefaults): HandleParts => {
    const submit = (
      method: string,
      args: readonly unknown[],
      options: CallOptions,
      wantsReply: boolean,
      ok: (value: unknown) => void,
      fail: (error: unknown) => void,
    ) => {
      const retries = options.retries ?? 0;
      channel.submit({
        method: options.concurrencyGroup === undefined ? method : `${method}@${options.concurrencyGroup}`,
        args,
        timeoutMs: options.timeoutMs === undefined ? defaults.callTimeoutMs : options.timeoutMs,
        signal: options.signal,
        retries,
        key: options.idempotencyKey ?? (retries > 0 ? nextId("call") : undefined),
        traceId: options.traceId,
        urgent: urgentMethods.has(method),
        wantsReply,
        ok,
        fail,
      });
    };
    const source = (method: string): RefSource => ({
      describe() {
        const { actorId, className, state, waiting } = channel.view();
        return { actorId, className, method, state, waiting };
      },
      inquire: () =>
        new Promise((resolve) =>
          submit(
            "slime.describe",
            [],
            { timeoutMs: 2_000 },
            true,
            (about) => resolve(typeof about === "object" && about !== null ? { ...about, methods: undefined } : {}),
            () => resolve({}),
          ),
        ),
    });
    return {
      channel,
      call: (method, args, options) =>
        new Promise((resolve, reject) => {
          // A large result of this form has no other holder, so it is given back as soon as it is read.
          submit(
            method,
            args,
            options,
            true,
            (value) => (value instanceof StoredValue ? void takeStored(value.object).then(resolve, reject) : resolve(value)),
            reject,
          );
        }),
      remote(method, args, options) {
        const ref = new ObjectRef<unknown>(nextId("obj"), { kind: "pending", waiters: [], source: source(method) });
        submit(
          method,
          args,
          options,
          true,
          (value) => settleRef(ref, value instanceof StoredValue ? { kind: "stored", object: value.object } : { kind: "value", value }),
          (error) => settleRef(ref, { kind: "failed", error }),
        );
        return ref;
      },
      send(method, args, options) {
        let refused: unknown;
        submit(
          method,
          args,
          options,
          false,
          () => {},
          (error) => (refused = error),
        );
        if (refused !== undefined) throw refused;
      },
      kill: (options) => kill(channel.view().actorId, options),
      wait: { clock, log },
    };
  };

  const takeStored = async (object: ObjectDescriptor): Promise<unknown> => {
    try {
      return await store.get(object);
    } finally {
      await store.free([object]);
    }
  };

  const fetch = async (ref: ObjectRef<unknown>): Promise<unknown> => {
    const state = refState(ref);
    if (state.kind === "value") return state.value;
    if (state.kind === "stored") return store.get(state.object);
    if (state.kind === "failed") throw state.error;
    throw new SlimeError("object.lost", `${ref.id} is not settled`, { objectId: ref.id, reason: "pending" });
  };

  const kill: Runtime["kill"] = async (actorId, options) => {
    const channel = channels.get(actorId)?.channel;
    const graceMs = options.graceMs ?? runtimeLimits.shutdownGraceMs;
    channel?.follow();
    await (await getControl()).killActor(
      { actorId, graceMs, noRestart: true },
      { timeoutMs: options.timeoutMs ?? runtimeLimits.controlTimeoutMs },
    );
    if (channel === undefined) return;
    await waitUntil(
      { clock, log },
      {
        what: () => `${actorId} to die; it is ${channel.view().state}`,
        check: () => (channel.view().state === "DEAD" ? { value: undefined } : null),
        listen: channel.onView,
        timeoutMs: options.timeoutMs ?? graceMs + runtimeLimits.controlTimeoutMs,
      },
    );
  };

  return {
    parts,
    hooks,
    store,
    control: getControl,
    nextId,
    adopt,
    kill,
    fetch,
    channelOf: (actorId) => channels.get(actorId)?.channel,
    // What large constructor arguments occupy stays: a restart reads them again.
    encodeArgs: async (args) => encodeValue((await prepareArgs(args, store)).args, hooks),
    async close() {
      await Promise.all([...channels.values()].map(({ channel }) => channel.close()));
      channels.clear();
      if (control !== undefined) await (await control.catch(() => undefined))?.close();
    },
  };
}

const noDefaults: CallDefaults = { callTimeoutMs: runtimeLimits.callTimeoutMsDefault, pendingCallsMax: runtimeLimits.pendingCallsMax };

function payloadOf(view: ActorView, defaults: CallDefaults): ActorPayload {
  const { actorId, jobId, className, name, incarnation, socket } = view;
  return { actorId, jobId, className, name, incarnation, socket, ...defaults };
}

/** What a handle that came over a wire lets one believe; the head is asked when it proves old. */
function viewOf(payload: ActorPayload): ActorView {
  const { actorId, jobId, className, name, incarnation, socket } = payload;
  const unborn = unbornView({ actorId, jobId, className, name });
  return socket === null ? unborn : { ...unborn, state: "ALIVE", incarnation, socket };
}
