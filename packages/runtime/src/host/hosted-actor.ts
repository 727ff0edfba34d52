/**
 * One life of an actor: its instance, and the handler that answers its callers. No sockets, no process: the host gives those,
 * tests give memory. H1: methods of the class are callable, nothing else is. H2: a call that was cancelled while it waited never starts.
 * H3: a call with a key runs once (call-record.ts). H4: after `shutdown` began, new calls fail with `actor.unavailable`.
 */
import { type Logger, SlimeError } from "@slime/core";
import type { ActorDescription, ActorSpec, Handler, IncomingCall } from "@slime/rpc";
import { prepareResult, readArgs } from "../call-args.js";
import { allowMany, endingReason } from "../channel-call.js";
import { runtimeLimits } from "../limits.js";
import type { ValueStore } from "../ports.js";
import { measure } from "../values.js";
import { callRecord } from "./call-record.js";
import { type ActorContext, applyInContext, runInContext } from "./context.js";
import { executor, type Group, isPromise, refusedFull } from "./executor.js";
import { type LastingSignal, lastingSignal, mayRepeat, thenRelease } from "./lasting-signal.js";

type Instance = Readonly<Record<string, unknown>> & object;
type Method = (...args: never[]) => unknown;
type Constructor = new (...args: readonly unknown[]) => Instance;

export interface HostedActorParts {
  readonly spec: ActorSpec;
  readonly context: Omit<ActorContext, "call" | "signal" | "phase" | "exit" | "leasePorts">;
  readonly store: ValueStore;
  readonly log: Logger;
  readonly onPhase: (phase: string, waitsFor: string | null) => void;
  readonly onExit: () => void;
  readonly leasePorts: (count: number) => Promise<readonly number[]>;
  /** Told the context before the constructor runs: a host makes it the whole process's. */
  readonly onConstructing?: (context: ActorContext) => void;
}

export interface HostedActor {
  readonly handler: Handler;
  readonly context: ActorContext;
  /** Aborts calls in progress, then runs `onShutdown` or `[Symbol.asyncDispose]`. Errors of theirs are logged. Idempotent. */
  readonly shutdown: (reason: string) => Promise<void>;
  /** Admits no new calls and resolves when those in progress and waiting are done. */
  readonly drain: () => Promise<void>;
}

/** Names a class never offers to callers. */
const hidden = (name: string): boolean => name === "constructor" || name === "onShutdown" || name.startsWith("_");

/** Constructs the actor. @throws actor.creation with the constructor's error as its cause. */
export async function constructActor(actorClass: unknown, args: readonly unknown[], parts: HostedActorParts): Promise<HostedActor> {
  const { spec } = parts;
  const className = spec.exportName;
  const ending = new AbortController();
  // Every call that looks at its signal listens to it, and each lets go when it is over.
  allowMany(ending.signal);
  let phase: { readonly phase: string; readonly waitsFor: string | null } = { phase: "", waitsFor: null };
  const context: ActorContext = {
    ...parts.context,
    signal: ending.signal,
    call: null,
    phase(text, options) {
      phase = { phase: text, waitsFor: options?.waitingFor ?? null };
      parts.onPhase(phase.phase, phase.waitsFor);
    },
    leasePorts: parts.leasePorts,
    exit: () => parts.onExit(),
  };
  parts.onConstructing?.(context);
  const instance = await construct(actorClass, args, parts, context);
  const methods = methodsOf(instance);
  const methodGroups = (instance.constructor as unknown as { readonly methodGroups?: Readonly<Record<string, string>> }).methodGroups ?? {};
  const run = executor({
    concurrency: spec.concurrency,
    groups: spec.concurrencyGroups,
    urgentMax: runtimeLimits.urgentRunningMax,
    pendingMax: spec.pendingCallsMax,
  });
  const record = callRecord(
    { entriesMax: runtimeLimits.recordedResultsMax, bytesMax: runtimeLimits.recordedBytesMax },
    (value) => measure(value).bytes,
  );
  const running = new Map<number, string>();
  let runs = 0;
  let phaseOfLife: "open" | "draining" | "ending" = "open";
  let ended: Promise<void> | undefined;

  const describe = (): ActorDescription & { readonly phase: string; readonly waitsFor: string | null } => ({
    actorId: spec.actorId,
    incarnation: spec.incarnation,
    className,
    methods: [...methods.keys()].sort(),
    pending: run.pending(),
    running: [...running.values()],
    ...phase,
  });

  /** Runs the method now; `signal` is made only if it looks. */
  const invoke = (call: IncomingCall, name: string, method: Method, args: readonly unknown[]): unknown => {
    const { deadlineMs, traceId, idempotencyKey } = call;
    if (idempotencyKey === null)
      return applyInContext(
        context,
        { method: name, deadlineMs, traceId, idempotencyKey, signal: () => call.signal },
        method,
        instance,
        args,
      );
    let made: LastingSignal | null = null;
    const signal = () => {
      made ??= lastingSignal(call, ending.signal);
      return made.signal;
    };
    const release = () => made?.release();
    return thenRelease(
      () => applyInContext(context, { method: name, deadlineMs, traceId, idempotencyKey, signal }, method, instance, args),
      release,
    );
  };
  /** Keeps a call listed while it runs, then makes room. */
  const listed = (name: string, result: Promise<unknown>, leave: () => void): Promise<unknown> => {
    const id = runs++;
    running.set(id, name);
    return result.then(
      (value) => {
        running.delete(id);
        leave();
        return value;
      },
      (error: unknown) => {
        running.delete(id);
        leave();
        throw error;
      },
    );
  };

  const queued = (
    call: IncomingCall,
    name: string,
    group: Group,
    method: Method,
    read: readonly unknown[] | Promise<readonly unknown[]>,
  ): Promise<unknown> => {
    let args = read;
    const ready = read instanceof Promise ? read.then((values) => void (args = values)) : null;
    const outcome = run.submit(group, {
      ready,
      run() {
        if (args instanceof Promise) return args;
        if (call.aborted && !mayRepeat(call)) throw call.signal.reason;
        const result = invoke(call, name, method, args);
        return isPromise(result) ? listed(name, result, () => {}) : result;
      },
    });
    if (outcome !== refusedFull) return outcome;
    ready?.catch(() => undefined);
    const pending = run.pending();
    throw new SlimeError("actor.busy", `${pending} calls wait in ${className} ${spec.actorId}`, {
      actorId: spec.actorId,
      pending,
      pendingMax: spec.pendingCallsMax,
    });
  };

  const execute = (call: IncomingCall, name: string, group: Group, method: Method): unknown => {
    const args = readArgs(argsOf(call), parts.store);
    if (args instanceof Promise || !run.enter(group)) return queued(call, name, group, method, args);
    let result: unknown;
    try {
      result = invoke(call, name, method, args);
    } catch (error) {
      run.leave(group);
      throw error;
    }
    if (!isPromise(result)) {
      run.leave(group);
      return result;
    }
    return listed(name, result, () => run.leave(group));
  };

  const handler: Handler = (call) => {
    if (call.method === "slime.ping") return call.args;
    if (call.method === "slime.describe") return describe();
    const at = call.method.indexOf("@");
    const name = at < 0 ? call.method : call.method.slice(0, at);
    const urgent = call.urgent || name === "health" || name === "abort";
    // A group the class names counts where the actor was given it; one the call names must be there.
    const group =
      at < 0 ? (run.group(methodGroups[name] ?? null, urgent) ?? run.group(null, urgent)) : run.group(call.method.slice(at + 1), urgent);
    const method = methods.get(name);
    if (method === undefined) {
      const has = [...methods.keys()].sort();
      throw new SlimeError("actor.no_method", `${className} has no method ${name}; it has ${has.join(", ")}`, {
        actorId: spec.actorId,
        method: name,
        has,
      });
    }
    if (group === undefined) {
      const issue = `${className} has no concurrency group ${call.method.slice(at + 1)}; give it in the actor's concurrencyGroups`;
      throw new SlimeError("config.invalid", issue, { issues: [issue] });
    }
    if (phaseOfLife !== "open" && !(phaseOfLife === "draining" && call.urgent)) {
      throw new SlimeError("actor.unavailable", `${className} ${spec.actorId} is ending`, {
        actorId: spec.actorId,
        incarnation: spec.incarnation,
        reason: endingReason,
      });
    }
    const key = call.idempotencyKey;
    const outcome = key === null ? execute(call, name, group, method) : record.once(key, () => execute(call, name, group, method));
    return isPromise(outcome) ? outcome.then((value) => prepareResult(value, parts.store)) : prepareResult(outcome, parts.store);
  };

  const shutdown = async (reason: string) => {
    phaseOfLife = "ending";
    ending.abort(
      new SlimeError("actor.unavailable", `${className} ${spec.actorId} ends: ${reason}`, {
        actorId: spec.actorId,
        incarnation: spec.incarnation,
        reason,
      }),
    );
    const hook = instance["onShutdown"] ?? (instance as { readonly [Symbol.asyncDispose]?: unknown })[Symbol.asyncDispose];
    if (typeof hook !== "function") return;
    try {
      await runInContext(context, null, () => (hook as () => unknown).call(instance));
    } catch (error) {
      parts.log.error("actor.shutdown_failed", { actorId: spec.actorId, error: error instanceof Error ? error.stack : String(error) });
    }
  };

  return {
    handler,
    context,
    shutdown: (reason) => (ended ??= shutdown(reason)),
    async drain() {
      if (phaseOfLife === "open") phaseOfLife = "draining";
      await run.idle();
    },
  };
}

async function construct(actorClass: unknown, args: readonly unknown[], parts: HostedActorParts, context: ActorContext): Promise<Instance> {
  const { spec } = parts;
  try {
    if (typeof actorClass !== "function") throw new TypeError(`${spec.module} exports no class ${spec.exportName}`);
    const read = await readArgs(args, parts.store);
    return runInContext(context, null, () => new (actorClass as Constructor)(...read));
  } catch (error) {
    throw creationError(spec, error);
  }
}

/** What every caller of an actor whose creation failed gets. */
export function creationError(spec: Pick<ActorSpec, "actorId" | "exportName">, error: unknown): SlimeError {
  const said = error instanceof Error ? error.message : String(error);
  return new SlimeError(
    "actor.creation",
    `${spec.exportName} ${spec.actorId} could not be created: ${said}`,
    { actorId: spec.actorId, className: spec.exportName },
    { cause: error },
  );
}

function argsOf(call: IncomingCall): readonly unknown[] {
  if (Array.isArray(call.args)) return call.args;
  throw new SlimeError("codec.refused", `${call.method}: arguments travel as an array`, { where: call.method, reason: "not an array" });
}

/** H1: functions along the prototype chain, up to Object's; getters are not run. */
function methodsOf(instance: Instance): ReadonlyMap<string, Method> {
  const methods = new Map<string, Method>();
  for (let at: unknown = instance; typeof at === "object" && at !== null && at !== Object.prototype; at = Object.getPrototypeOf(at)) {
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(at))) {
      if (typeof value === "function" && !hidden(name) && !methods.has(name) && at !== instance) methods.set(name, value as Method);
    }
  }
  return methods;
}
