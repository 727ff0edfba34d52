import { SlimeError } from "@slime/core";
import { type HowItDied, lastWords } from "@slime/platform";
import type { StartActor } from "@slime/rpc/control";
import { checkShares, gpuShares, wholeGpu } from "./bundles.js";
import { actorIn, bounded, type Draft, dropNext, fillPool, setLife, sharesLived, sharesTaken, startHost } from "./draft.js";
import { needsFreshProcess } from "./environment.js";
import { nodeLimits } from "./limits.js";
import type { Language, Life, NodeEvent } from "./node-state.js";
import { actorReport, actorUp, deathOf } from "./reports.js";

type Of<K extends NodeEvent["kind"]> = Extract<NodeEvent, { readonly kind: K }>;

function endedKey(start: { readonly actorId: string; readonly incarnation: number }): string {
  return `${start.actorId}#${start.incarnation}`;
}

/** The head wants a life of an actor here: begins it, or says what is known of it (N1, N2). */
export function startActor(draft: Draft, start: StartActor): void {
  const spec = start.spec;
  if (spec === undefined) return;
  const ended = draft.endedActors.get(endedKey({ actorId: spec.actorId, incarnation: start.incarnation }));
  if (ended !== undefined) return void draft.effects.push({ kind: "report", up: actorUp(ended.report) });
  const current = draft.actors.get(spec.actorId);
  if (current?.life == null) {
    if ((current?.next?.incarnation ?? 0) <= start.incarnation) begin(draft, start);
    return;
  }
  const { life } = current;
  if (life.start.incarnation === start.incarnation) return reportLife(draft, life);
  if (life.start.incarnation > start.incarnation) return;
  draft.actors.set(spec.actorId, { life, next: start });
  endLife(draft, spec.actorId, life, 0, "KILLED", `incarnation ${start.incarnation} takes its place`);
}

/** Takes a ready host, or starts one. A life that cannot begin is reported as gone at once. */
function begin(draft: Draft, start: StartActor): void {
  const spec = start.spec;
  if (spec === undefined) return;
  if (draft.stopping) return neverBegan(draft, start, "NODE_DIED", "the node is stopping");
  const shares = gpuShares(spec.resources["GPU"] ?? 0, start.gpuIndices);
  const going = sharesLived(draft, true);
  const lived = sharesLived(draft, false);
  if ([...shares].some(([gpu, units]) => (going.get(gpu) ?? 0) > 0 && (lived.get(gpu) ?? 0) + units > wholeGpu))
    return void draft.actors.set(spec.actorId, { life: null, next: start }); // N8
  if (spec.placementGroupId === "") {
    try {
      checkShares(shares, sharesTaken(draft), draft.context.gpus.length, `actor ${spec.actorId}`);
    } catch (error) {
      if (SlimeError.isAny(error)) return neverBegan(draft, start, "WORKER_DIED", error.message);
      throw error;
    }
  }
  const language: Language = spec.host === "python" ? "python" : "node";
  const idle =
    language === "node" && !needsFreshProcess(spec.env)
      ? [...draft.hosts].find(([, host]) => host.kind === "idle" && host.language === language)
      : undefined;
  const life: Omit<Life, "processId" | "pid"> = { start, phase: "starting", socket: "", wanted: null, creationFailure: null, does: null };
  if (idle !== undefined && idle[1].kind === "idle") {
    const [processId, { pid }] = idle;
    setLife(draft, spec.actorId, { ...life, processId, pid });
    assign(draft, processId, language, pid, start);
  } else {
    setLife(draft, spec.actorId, { ...life, processId: startHost(draft, language, start), pid: 0 });
  }
  const processId = draft.actors.get(spec.actorId)?.life?.processId ?? "";
  if (spec.creationTimeoutMs > 0)
    draft.effects.push({ kind: "timer", timer: { of: "creation", processId }, delayMs: spec.creationTimeoutMs });
  fillPool(draft);
}

function assign(draft: Draft, processId: string, language: Language, pid: number, start: StartActor): void {
  const actorId = start.spec?.actorId ?? "";
  draft.hosts.set(processId, { kind: "assigned", language, pid, actorId });
  draft.effects.push({ kind: "assign", processId, start });
  draft.effects.push({ kind: "report", up: actorUp(actorReport(start, { $case: "starting", value: { pid } })) });
}

function neverBegan(draft: Draft, start: StartActor, reason: string, message: string): void {
  const death = deathOf({ nodeId: draft.context.nodeId, atMs: draft.context.wallMs(), reason, message, pid: null, how: null });
  draft.effects.push({
    kind: "report",
    up: actorUp(actorReport(start, { $case: "gone", value: { death, creationFailure: Buffer.alloc(0) } })),
  });
}

function reportLife(draft: Draft, life: Life): void {
  const news =
    life.phase === "alive"
      ? ({ $case: "alive", value: { pid: life.pid, socket: life.socket } } as const)
      : ({ $case: "starting", value: { pid: life.pid } } as const);
  if (life.phase !== "ending") draft.effects.push({ kind: "report", up: actorUp(actorReport(life.start, news)) });
}

/** Ends a life; the first reason given is the one reported. */
export function endLife(draft: Draft, actorId: string, life: Life, graceMs: number, reason: string, message: string): void {
  setLife(draft, actorId, { ...life, phase: "ending", wanted: life.wanted ?? { reason, message } });
  draft.effects.push({ kind: "end", processId: life.processId, graceMs, reason: message });
}

/** The head wants a life ended; one that is over is said again. */
export function stopActor(draft: Draft, event: Of<"stop_actor">): void {
  const { actorId, incarnation, graceMs } = event;
  const matches = (of: number) => incarnation === 0 || incarnation === of;
  const actor = draft.actors.get(actorId);
  if (actor?.next != null && matches(actor.next.incarnation)) {
    dropNext(draft, actorId);
    neverBegan(draft, actor.next, event.reason, "stopped before it began");
  }
  if (actor?.life != null && matches(actor.life.start.incarnation))
    return endLife(draft, actorId, actor.life, graceMs, event.reason, "its daemon was asked to stop it");
  const ended = [...draft.endedActors.values()].find(({ report }) => report.actorId === actorId && matches(report.incarnation));
  if (ended !== undefined) draft.effects.push({ kind: "report", up: actorUp(ended.report) });
  else if (actor === undefined)
    neverBegan(
      draft,
      { spec: { actorId } as NonNullable<StartActor["spec"]>, incarnation, gpuIndices: [] },
      event.reason,
      "it is not on this node",
    );
}

/** A host is connected: new, ready, or back with what it hosts. */
export function hostRegistered(draft: Draft, event: Of<"host_registered">): void {
  const { processId, pid, language, actor } = event;
  const host = draft.hosts.get(processId);
  const of = actorIn(draft, processId);
  draft.poolDeaths = 0;
  if (actor !== null) {
    if (of === null || of.actorId !== actor.actorId || of.life.start.incarnation !== actor.incarnation) {
      return void draft.effects.push({
        kind: "end",
        processId,
        graceMs: 0,
        reason: `it says it hosts ${actor.actorId}#${actor.incarnation}, which does not belong here`,
      });
    }
    draft.hosts.set(processId, { kind: "assigned", language, pid, actorId: of.actorId });
    if (actor.state === "alive")
      hostAlive(draft, { kind: "host_alive", processId, incarnation: actor.incarnation, pid, socket: actor.socketPath });
    return;
  }
  if (of !== null && of.life.phase !== "ending") {
    // It has not been told yet whose it is: it was started for this actor, or the daemon died in between (N3).
    setLife(draft, of.actorId, { ...of.life, pid });
    return assign(draft, processId, language, pid, of.life.start);
  }
  if (of !== null || draft.stopping) return void draft.effects.push({ kind: "end", processId, graceMs: 0, reason: "it is not needed" });
  if (host !== undefined) draft.hosts.set(processId, { kind: "idle", language, pid });
}

/** The constructor is done and the actor listens. */
export function hostAlive(draft: Draft, event: Of<"host_alive">): void {
  const of = actorIn(draft, event.processId);
  if (of === null || of.life.start.incarnation !== event.incarnation || of.life.phase === "ending") return;
  const life: Life = { ...of.life, phase: "alive", pid: event.pid, socket: event.socket };
  setLife(draft, of.actorId, life);
  if (of.life.phase !== "alive") reportLife(draft, life);
}

/** Loading or the constructor failed; the process ends by itself. */
export function hostFailed(draft: Draft, event: Of<"host_failed">): void {
  const of = actorIn(draft, event.processId);
  if (of === null) return;
  setLife(draft, of.actorId, { ...of.life, phase: "ending", creationFailure: event.failure });
  draft.effects.push({ kind: "end", processId: event.processId, graceMs: nodeLimits.failedHostMsMax, reason: "its construction failed" });
}

const exitReasons = {
  shutdown: { reason: "KILLED", message: "it was shut down" },
  self: { reason: "KILLED", message: "the actor ended itself" },
  orphaned: { reason: "ORPHANED", message: "no daemon came back for it in time" },
} as const;

/** A host says why it ends, before it does. */
export function hostExit(draft: Draft, event: Of<"host_exit">): void {
  const of = actorIn(draft, event.processId);
  if (of !== null) setLife(draft, of.actorId, { ...of.life, phase: "ending", wanted: of.life.wanted ?? exitReasons[event.reason] });
}

/** Exit code of a host that nobody came back for. */
const orphanExitCode = 75;

/** The process is gone, with all that came from it (N2). */
export function hostEnded(draft: Draft, processId: string, pid: number, how: HowItDied | null, launchMessage: string): void {
  const host = draft.hosts.get(processId);
  draft.hosts.delete(processId);
  const of = actorIn(draft, processId);
  if (of === null) {
    draft.effects.push({ kind: "drop_record", processId });
    if (host !== undefined) poolHostDied(draft);
    return;
  }
  const { actorId, life, actor } = of;
  const orphaned = how?.exitCode === orphanExitCode ? exitReasons.orphaned : null;
  const { reason, message } =
    life.creationFailure !== null
      ? { reason: "CREATION_FAILED", message: "its constructor failed" }
      : (life.wanted ?? orphaned ?? { reason: "WORKER_DIED", message: how?.message ?? launchMessage });
  // What it was not asked to do it explains itself, as far as it could.
  const said = life.wanted === null && life.creationFailure === null ? lastWords(how?.stderrTail ?? []) : null;
  const words = said === null ? [] : [said];
  const death = deathOf({
    nodeId: draft.context.nodeId,
    atMs: draft.context.wallMs(),
    reason,
    message: [how === null || message === how.message ? message : `${message}; ${how.message}`, ...words].join("; its last words: "),
    pid: pid || life.pid || null,
    how,
  });
  const report = actorReport(life.start, { $case: "gone", value: { death, creationFailure: life.creationFailure ?? Buffer.alloc(0) } });
  draft.endedActors.set(endedKey({ actorId, incarnation: life.start.incarnation }), {
    jobId: life.start.spec?.jobId ?? "",
    processId,
    report,
  });
  bounded(draft, draft.endedActors);
  draft.effects.push({ kind: "release_ports", holder: processId }, { kind: "report", up: actorUp(report) });
  draft.actors.delete(actorId);
  if (actor.next !== null) begin(draft, actor.next);
  for (const [waitingId, waiting] of [...draft.actors]) {
    if (waiting.life !== null || waiting.next === null) continue;
    draft.actors.delete(waitingId);
    begin(draft, waiting.next); // waits again where there is still no room (N8)
  }
  fillPool(draft);
}

/**
 * A process of an earlier life, with its record. Ended incarnations keep theirs until their job is forgotten, and records are found in no
 * order: the newest incarnation is the actor's life, whatever else is there is not needed.
 */
export function adoptActor(draft: Draft, { processId, pid, language, start }: Of<"adopted_actor">): void {
  const actorId = start.spec?.actorId ?? "";
  const known = draft.actors.get(actorId)?.life ?? null;
  const newest = known === null || known.start.incarnation < start.incarnation;
  draft.hosts.set(processId, { kind: "assigned", language, pid, actorId });
  if (newest)
    setLife(draft, actorId, { start, processId, phase: "starting", pid, socket: "", wanted: null, creationFailure: null, does: null });
  const older = newest ? known?.processId : processId;
  if (older !== undefined) draft.effects.push({ kind: "end", processId: older, graceMs: 0, reason: "a newer incarnation is here (N1)" });
}

function poolHostDied(draft: Draft): void {
  if (draft.stopping) return;
  draft.poolDeaths++;
  if (draft.poolDeaths === nodeLimits.poolDeathsMax)
    draft.effects.push({ kind: "timer", timer: { of: "pool" }, delayMs: nodeLimits.poolRestMs });
  fillPool(draft);
}
