import type { Engine } from "@slime/backend";
import { causeChain, SlimeError } from "@slime/core";
import type { ActorHandle } from "@slime/runtime";
import type { RolloutEngine } from "../actors/rollout-engine.js";

/** What a call may take beyond the engine's own deadline for it: the owner then answers with its reason, not we with ours. */
const relayMsMax = 5_000;
/** Calls that answer at once, and those that may wait for running requests: as long as the engine's clients give them. */
const controlMsMax = 30_000;
const updateMsMax = 180_000;

/** What can go wrong on the way to the owner; anything else is the engine's own answer and passes unchanged. */
const relayCodes: ReadonlySet<string> = new Set([
  "actor.unavailable",
  "actor.died",
  "actor.busy",
  "actor.stale",
  "call.deadline",
  "wire.broken",
]);

/**
 * One life of an engine as the port `Engine`: each call is its owner's to make. An owner that died or does not answer is
 * `engine.unavailable`, as a dead server is; a call never reaches the owner's next life. Streams do not come through here.
 */
export function engineOverActor(actor: ActorHandle<RolloutEngine>, life: { readonly url: string; readonly incarnation: number }): Engine {
  const { url, incarnation } = life;
  const unavailable = (reason: string, cause?: unknown) =>
    new SlimeError("engine.unavailable", `engine ${url}: ${reason}`, { engine: url, reason }, cause === undefined ? {} : { cause });
  const ask = async <T>(call: () => Promise<T>): Promise<T> => {
    const now = actor.state();
    // A call would wait for the next life, which refuses it.
    if (now.incarnation !== incarnation || now.state !== "ALIVE")
      throw unavailable(now.incarnation === incarnation ? `its owner is ${now.state}` : "that life is over");
    try {
      return await call();
    } catch (error) {
      throw SlimeError.isAny(error) && relayCodes.has(error.code) ? unavailable(causeChain(error).join(": "), error) : error;
    }
  };
  const control = { timeoutMs: controlMsMax + relayMsMax };
  const update = { timeoutMs: updateMsMax + relayMsMax };
  return {
    url,
    generate(request, { signal, timeoutMs, onTokens }) {
      if (onTokens !== undefined) {
        const why = `tokens do not stream through an engine's owner: ask ${url} itself`;
        return Promise.reject(new SlimeError("unsupported", why, { what: "onTokens", why }));
      }
      const how = { timeoutMs: timeoutMs + relayMsMax, ...(signal && { signal }) };
      return ask(() => actor.generate.options(how)(incarnation, request, timeoutMs));
    },
    health: (timeoutMs) => ask(() => actor.health.options({ timeoutMs: timeoutMs + relayMsMax })(incarnation, timeoutMs)),
    info: () => ask(() => actor.info.options(control)(incarnation)),
    load: () => ask(() => actor.load.options(control)(incarnation)),
    abort: (target) => ask(() => actor.abort.options(control)(incarnation, target)),
    pause: (mode) => ask(() => actor.pause.options(control)(incarnation, mode)),
    resume: () => ask(() => actor.resume.options(control)(incarnation)),
    flush: () => ask(() => actor.flush.options(update)(incarnation)),
    updateWeights: (request) => ask(() => actor.updateWeights.options(update)(incarnation, request)),
    // The owner has the connections, and they end with it.
    close: async () => {},
  };
}
