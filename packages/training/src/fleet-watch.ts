import { causeChain, SlimeError } from "@slime/core";
import type { FleetEvent } from "./ports.js";
import type { RunContext } from "./run-context.js";

/** Tries of bringing one restarted engine to the current weights before it is restarted again. */
export const catchUpTriesMax = 3;

/** Answers what happens to engines, router and workers without the loop asking. `onTrainerDeath`: the one event that the loop decides about. */
export function fleetWatch(context: RunContext, onTrainerDeath: (reason: string) => void): (event: FleetEvent) => void {
  const { log } = context.ports;
  return (event) => {
    switch (event.kind) {
      case "engine.died":
        log.warn("engine.died", { engine: event.engineId, reason: event.reason });
        context.push.forget(event.url);
        return;
      case "engine.started":
        log.info("engine.started", { engine: event.engineId });
        if (context.push.version() > 0) void catchUp(context, event, 1);
        return;
      case "engine.phase":
        context.progressed();
        context.show(`${event.engineId}: ${event.phase}`);
        return;
      case "router.died":
        log.warn("router.died", { reason: event.reason });
        return;
      case "router.started":
        context.push.reopen().catch((error: unknown) => log.error("router.reopen.failed", { reason: causeChain(error).join(": ") }));
        return;
      case "worker.died":
        log.warn("worker.died", { worker: event.worker, reason: event.reason });
        return;
      case "trainer.died":
        onTrainerDeath(event.reason);
        return;
    }
  };
}

/** A restarted engine holds old weights: it gets the current ones, verified, before any request. */
async function catchUp(context: RunContext, engine: { readonly engineId: string; readonly url: string }, tries: number): Promise<void> {
  const { push, ports, deadlines } = context;
  const { engineId, url } = engine;
  try {
    await push.catchUp({ url, version: push.version(), timeoutMs: deadlines.timeoutMs("push") });
    ports.log.info("engine.caught_up", { engine: engineId, version: push.version() });
    context.progressed();
  } catch (error) {
    const reason = causeChain(error).join(": ");
    ports.log.warn("engine.catch_up.failed", { engine: engineId, tries, reason });
    if (SlimeError.is(error, "engine.unavailable") || push.stateOf(url) === "quarantined") return;
    if (tries < catchUpTriesMax) await catchUp(context, engine, tries + 1);
    else await ports.fleet.restart(engineId, reason).catch(() => {});
  }
}
