import { unreachable } from "@slime/core";
import { type BundleStep, commitBundles, lapseBundles, prepareBundles, releaseBundles } from "./bundles.js";
import { actorIn, type Draft, draftOf, fillPool, type StepContext, setLife, sharesOutside, stateOf } from "./draft.js";
import { nodeLimits } from "./limits.js";
import type { Life, NodeEffect, NodeEvent, NodeState, TimerKey } from "./node-state.js";
import { actorReport, actorUp, bundlesUp } from "./reports.js";
import { adoptActor, endLife, hostAlive, hostEnded, hostExit, hostFailed, hostRegistered, startActor, stopActor } from "./step-actors.js";
import { adoptJob, driverEnded, forgetJob, startJob, stopJob } from "./step-jobs.js";

export interface Step {
  readonly state: NodeState;
  readonly effects: readonly NodeEffect[];
}

/** The daemon's whole judgement: what an event changes, and what is to be done about it. Pure, given the context. */
export function step(state: NodeState, event: NodeEvent, context: StepContext): Step {
  const draft = draftOf(state, context);
  apply(draft, event);
  return { state: stateOf(draft), effects: draft.effects };
}

function apply(draft: Draft, event: NodeEvent): void {
  switch (event.kind) {
    case "start_actor":
      return startActor(draft, event.start);
    case "stop_actor":
      return stopActor(draft, event);
    case "start_job":
      return startJob(draft, event.start);
    case "stop_job":
      return stopJob(draft, event.jobId, event.graceMs);
    case "forget_job":
      return forgetJob(draft, event.jobId);
    case "prepare": {
      const result = prepareBundles(draft.bundles, event, sharesOutside(draft, event), draft.context.gpus.length);
      if (result.failure === null)
        draft.effects.push({
          kind: "timer",
          timer: { of: "reservation", id: event.id, generation: event.generation },
          delayMs: event.ttlMs,
        });
      return settleBundles(draft, event, "prepare", result);
    }
    case "commit":
      return settleBundles(draft, event, "commit", commitBundles(draft.bundles, event.id, event.generation));
    case "release":
      return settleBundles(draft, event, "release", releaseBundles(draft.bundles, event.id, event.generation));
    case "host_registered":
      return hostRegistered(draft, event);
    case "host_alive":
      return hostAlive(draft, event);
    case "host_failed":
      return hostFailed(draft, event);
    case "host_exit":
      return hostExit(draft, event);
    case "host_phase": {
      const of = actorIn(draft, event.processId);
      if (of === null) return;
      const life = { ...of.life, does: { phase: event.phase, waitingFor: event.waitingFor } };
      setLife(draft, of.actorId, life);
      return reportPhase(draft, life);
    }
    case "welcomed":
      fillPool(draft);
      // An actor that does the same thing for long says so once: a head that was started since does not know it.
      for (const { life } of draft.actors.values()) if (life !== null) reportPhase(draft, life);
      return;
    case "host_hangs": {
      const of = actorIn(draft, event.processId);
      if (of !== null) return endLife(draft, of.actorId, of.life, 0, "WORKER_DIED", event.message);
      return void draft.effects.push({ kind: "end", processId: event.processId, graceMs: 0, reason: event.message });
    }
    case "launched":
      return launched(draft, event);
    case "launch_failed":
      return ended(draft, event.processId, 0, null, event.message);
    case "ended":
      return ended(draft, event.processId, event.pid, event.death, event.death.message);
    case "adopted_actor":
      return adoptActor(draft, event);
    case "adopted_host":
      return void draft.hosts.set(event.processId, { kind: "starting", language: event.language, actorId: null });
    case "adopted_job":
      return adoptJob(draft, event);
    case "adopted_bundles":
      draft.bundles = event.bundles;
      return;
    case "timer":
      return timer(draft, event.timer);
    case "stop":
      return stop(draft, event.graceMs, event.reason);
    default:
      return unreachable(event);
  }
}

function reportPhase(draft: Draft, { start, does, phase }: Life): void {
  if (does !== null && phase !== "ending")
    draft.effects.push({ kind: "report", up: actorUp(actorReport(start, { $case: "phase", value: does })) });
}

function settleBundles(draft: Draft, of: { readonly id: string; readonly generation: number }, name: string, result: BundleStep): void {
  if (result.bundles !== draft.bundles) draft.effects.push({ kind: "save_bundles" });
  draft.bundles = result.bundles;
  draft.effects.push({ kind: "report", up: bundlesUp({ placementGroupId: of.id, generation: of.generation, step: name }, result.failure) });
}

function launched(draft: Draft, event: Extract<NodeEvent, { kind: "launched" }>): void {
  for (const [jobId, job] of draft.jobs) {
    if (job.processId !== event.processId) continue;
    draft.jobs.set(jobId, { ...job, pid: event.pid, logPath: event.logPath });
    const value = { pid: event.pid, logPath: event.logPath };
    draft.effects.push({
      kind: "report",
      up: { message: { $case: "job", value: { jobId, attempt: job.start.attempt, state: { $case: "running", value } } } },
    });
  }
}

function ended(draft: Draft, processId: string, pid: number, how: Parameters<typeof hostEnded>[3], message: string): void {
  for (const [jobId, job] of draft.jobs) if (job.processId === processId) return driverEnded(draft, jobId, job, how, message);
  hostEnded(draft, processId, pid, how, message);
}

function timer(draft: Draft, key: TimerKey): void {
  switch (key.of) {
    case "creation": {
      const of = actorIn(draft, key.processId);
      if (of?.life.phase !== "starting") return;
      return endLife(
        draft,
        of.actorId,
        of.life,
        0,
        "WORKER_DIED",
        `it was not ready within ${of.life.start.spec?.creationTimeoutMs ?? 0} ms of its creation`,
      );
    }
    case "reservation": {
      const bundles = lapseBundles(draft.bundles, key.id, key.generation);
      if (bundles !== draft.bundles) draft.effects.push({ kind: "save_bundles" });
      draft.bundles = bundles;
      return;
    }
    case "pool":
      draft.poolDeaths = Math.min(draft.poolDeaths, nodeLimits.poolDeathsMax - 1);
      return fillPool(draft);
    default:
      return unreachable(key);
  }
}

/** Everything here ends: actors and idle hosts are asked, drivers are signalled. */
function stop(draft: Draft, graceMs: number, reason: string): void {
  draft.stopping = true;
  for (const [actorId, { life }] of [...draft.actors]) {
    if (life === null) continue;
    draft.actors.set(actorId, { life, next: null });
    endLife(draft, actorId, life, graceMs, "NODE_DIED", reason);
  }
  for (const [processId] of draft.hosts)
    if (actorIn(draft, processId) === null)
      draft.effects.push({ kind: "end", processId, graceMs: Math.min(graceMs, nodeLimits.termGraceMs), reason });
  for (const jobId of [...draft.jobs.keys()]) stopJob(draft, jobId, graceMs, `its node ${draft.context.nodeId} was stopped (${reason})`);
}
