import { type DeathRecord, SlimeError } from "@slime/core";
import type { ActorState, ActorStatus } from "./handle-types.js";

/** What the head last said of an actor. */
export interface ActorView {
  readonly actorId: string;
  readonly jobId: string;
  readonly className: string;
  readonly name: string;
  readonly state: ActorState;
  /** Counts its lives, from 1; 0 before the first starts. */
  readonly incarnation: number;
  readonly restarts: number;
  /** Where this life listens; null unless ALIVE. */
  readonly socket: string | null;
  readonly nodeId: string | null;
  readonly pid: number | null;
  readonly waiting: readonly string[];
  readonly death: DeathRecord | null;
  /** `actor.creation` with the constructor's error as its cause. */
  readonly creationFailure: unknown;
}

/** An actor that only this process knows of so far. */
export function unbornView(actor: {
  readonly actorId: string;
  readonly jobId: string;
  readonly className: string;
  readonly name: string;
}): ActorView {
  return {
    ...actor,
    state: "DEPENDENCIES_UNREADY",
    incarnation: 0,
    restarts: 0,
    socket: null,
    nodeId: null,
    pid: null,
    waiting: [],
    death: null,
    creationFailure: null,
  };
}

/**
 * Which of two reports of the head holds. It says them in order, but a reconnect repeats the newest.
 * V1: DEAD is final. V2: a report of an earlier life changes nothing. (Within a life the last word counts: one that is being
 * started is RESTARTING under its own number before it is ALIVE.)
 */
export function newerView(known: ActorView, heard: ActorView): ActorView {
  if (known.state === "DEAD") return known;
  return heard.state === "DEAD" || heard.incarnation >= known.incarnation ? heard : known;
}

/** "WORKER_DIED: killed by SIGKILL (pid 4711 on node_…), out of memory; last lines: …" */
export function deathText(death: DeathRecord | null): string {
  if (death === null) return "how it died is not known";
  const how = death.signal !== null ? `killed by ${death.signal}` : death.exitCode !== null ? `exit code ${death.exitCode}` : "";
  const where = [death.pid === null ? "" : `pid ${death.pid}`, death.nodeId === null ? "" : `on ${death.nodeId}`].filter(Boolean).join(" ");
  const facts = [how, where === "" ? "" : `(${where})`, death.oom ? "out of memory" : "", death.message]
    .filter(Boolean)
    .join(", ")
    .replace(", (", " (");
  // A message that ends with its last words has said it already.
  const known = death.stderrTail.some((line) => line.trim() !== "" && death.message.includes(line.trim()));
  const tail = known ? "" : death.stderrTail.slice(-5).join(" | ");
  return `${death.reason}: ${facts}${tail === "" ? "" : `; last lines of stderr: ${tail}`}`;
}

const nameOf = (view: ActorView): string => `${view.name === "" ? view.className : view.name} (${view.actorId})`;

/** The actor may come back. */
export function unavailable(view: ActorView, reason: string): SlimeError {
  return new SlimeError(
    "actor.unavailable",
    `${nameOf(view)} is unavailable: ${reason}. It may come back: call again, or pass \`retries\``,
    {
      actorId: view.actorId,
      incarnation: view.incarnation,
      reason,
    },
  );
}

const unknownDeath = (view: ActorView): DeathRecord => ({
  reason: "WORKER_DIED",
  message: "the head has no record of how",
  pid: view.pid,
  exitCode: null,
  signal: null,
  oom: false,
  stderrTail: [],
  nodeId: view.nodeId,
  atMs: 0,
});

/** What every call of a DEAD actor fails with: the constructor's failure, or how it died. */
export function deathError(view: ActorView): unknown {
  if (view.creationFailure !== null) return view.creationFailure;
  const death = view.death ?? unknownDeath(view);
  return new SlimeError("actor.died", `${nameOf(view)} died and will not come back: ${deathText(death)}`, {
    actorId: view.actorId,
    className: view.className,
    death,
  });
}

/** The part of a view that users see. */
export function statusOf(view: ActorView): ActorStatus {
  const { actorId, className, name, state, incarnation, restarts, nodeId, pid, waiting, death } = view;
  return { actorId, className, name, state, incarnation, restarts, nodeId, pid, waiting, death };
}
