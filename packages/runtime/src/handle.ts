import { SlimeError } from "@slime/core";
import { deathError, statusOf } from "./actor-view.js";
import type { ActorChannel } from "./channel-call.js";
import type { ActorStatus, CallOptions, HandleControls, WaitOptions } from "./handle-types.js";
import { runtimeLimits } from "./limits.js";
import type { ObjectRef } from "./object-ref.js";
import { waitUntil } from "./wait-until.js";

/** What a handle needs of the runtime. */
export interface HandleParts {
  readonly channel: ActorChannel;
  readonly call: (method: string, args: readonly unknown[], options: CallOptions) => Promise<unknown>;
  readonly remote: (method: string, args: readonly unknown[], options: CallOptions) => ObjectRef<unknown>;
  readonly send: (method: string, args: readonly unknown[], options: CallOptions) => void;
  readonly kill: (options: { readonly graceMs?: number; readonly timeoutMs?: number | null }) => Promise<void>;
  readonly wait: Parameters<typeof waitUntil>[0];
}

/** Names a handle keeps to itself. */
export const controlNames: ReadonlySet<string> = new Set([
  "actorId",
  "ready",
  "state",
  "onStateChange",
  "kill",
] satisfies (keyof HandleControls)[]);

const partsOfHandle = new WeakMap<object, HandleParts>();

/** The target of every handle's proxy: it makes a handle a class instance, which the codec asks its hooks about. */
class HandleTarget {}

/** What a handle was made of; undefined for anything else. */
export function handleParts(value: object): HandleParts | undefined {
  return value instanceof HandleTarget ? partsOfHandle.get(value) : undefined;
}

type Method = ((...args: unknown[]) => Promise<unknown>) & {
  remote: (...args: unknown[]) => ObjectRef<unknown>;
  send: (...args: unknown[]) => void;
  options: (options: CallOptions) => Method;
};

function remoteMethod(parts: HandleParts, name: string, options: CallOptions): Method {
  return Object.assign((...args: unknown[]) => parts.call(name, args, options), {
    remote: (...args: unknown[]) => parts.remote(name, args, options),
    send: (...args: unknown[]) => parts.send(name, args, options),
    options: (more: CallOptions) => remoteMethod(parts, name, { ...options, ...more }),
  });
}

/**
 * A handle: its controls, and a remote method under every other public name. Which methods exist is the actor's to say
 * (`actor.no_method`); types say it earlier. Symbols, `then`, `toJSON` and `_names` are absent, so it is neither thenable nor private.
 */
export function makeHandle(parts: HandleParts): object {
  const controls = handleControls(parts);
  const methods = new Map<string, Method>();
  const show = (): string => {
    const { className, actorId, state } = parts.channel.view();
    return `ActorHandle(${className} ${actorId}, ${state})`;
  };
  const handle = new Proxy(new HandleTarget(), {
    get(_, name) {
      if (typeof name === "symbol") return name === Symbol.for("nodejs.util.inspect.custom") ? show : undefined;
      if (controlNames.has(name)) return controls[name as keyof HandleControls];
      if (name === "then" || name === "toJSON" || name === "constructor" || name.startsWith("_")) return undefined;
      let method = methods.get(name);
      if (method === undefined) {
        method = remoteMethod(parts, name, {});
        methods.set(name, method);
      }
      return method;
    },
    set(_, name) {
      throw new TypeError(`an actor handle has no field ${String(name)} to set`);
    },
  });
  partsOfHandle.set(handle, parts);
  return handle;
}

function handleControls(parts: HandleParts): HandleControls {
  const { channel } = parts;
  return {
    actorId: channel.view().actorId,
    state: () => statusOf(channel.view()),
    ready: (options: WaitOptions = {}) => {
      channel.follow();
      return waitUntil(parts.wait, {
        what: () => {
          const { className, actorId, state, waiting } = channel.view();
          return `${className} ${actorId} to be ALIVE; it is ${state}${waiting.length === 0 ? "" : `: ${waiting.join("; ")}`}`;
        },
        reportFirstMs: runtimeLimits.waitReportFirstMs,
        check: () => {
          const view = channel.view();
          if (view.state === "DEAD") throw deathError(view);
          return view.state === "ALIVE" ? { value: undefined } : null;
        },
        listen: channel.onView,
        ...options,
      });
    },
    onStateChange: (listener: (status: ActorStatus) => void) => {
      channel.follow();
      return channel.onView((view) => listener(statusOf(view)));
    },
    kill: (options = {}) => parts.kill(options),
  };
}

/** A class whose methods hide behind a handle's own names is refused. @throws config.invalid */
export function checkMethodNames(actorClass: { readonly name: string; readonly prototype: object }): void {
  const taken = [...controlNames].filter((name) => name in actorClass.prototype);
  if (taken.length === 0) return;
  const issues = taken.map((name) => `${actorClass.name}.${name}: handles have a \`${name}\` of their own; rename the method`);
  throw new SlimeError("config.invalid", issues.join("; "), { issues });
}
