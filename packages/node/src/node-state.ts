/**
 * What a daemon knows of its node, the events that change it, and the effects it asks for. Data only; the machine in
 * `step.ts` decides, the shell in `daemon.ts` does. Invariants:
 * N1 one life of an actor runs at a time; a newer one waits until every process of the older is gone.
 * N2 a process that ended is reported once it and all that came from it are gone, and again until its job is forgotten.
 * N3 an actor is assigned to a process at most once in that process's life.
 * N4 messages of an older head epoch change nothing.
 * N5 a stopping node starts nothing.
 * N7 one driver of a job runs at a time; a newer attempt waits until every process of the older is gone.
 * N8 a life begins only when what ends here leaves room for it: nobody shares a GPU with a process that is still going.
 */
import type { HowItDied } from "@slime/platform";
import type { HostedActor } from "@slime/rpc";
import type { ActorReport, Death, JobReport, NodeUp, StartActor, StartJob } from "@slime/rpc/control";
import type { Bundles } from "./bundles.js";

export type Language = "node" | "python";

/** A process that is, or will be, an actor's host. */
export type HostState =
  /** Started, not registered; `actorId` is whom it is for. */
  | { readonly kind: "starting"; readonly language: Language; readonly actorId: string | null }
  /** In the pool. */
  | { readonly kind: "idle"; readonly language: Language; readonly pid: number }
  /** Belongs to this actor, once told so (N3). */
  | { readonly kind: "assigned"; readonly language: Language; readonly pid: number; readonly actorId: string };

/** One life of an actor here. */
export interface Life {
  readonly start: StartActor;
  readonly processId: string;
  readonly phase: "starting" | "alive" | "ending";
  readonly pid: number;
  readonly socket: string;
  /** Why it ends, once somebody wants it to. */
  readonly wanted: { readonly reason: Death["reason"]; readonly message: string } | null;
  /** The constructor's failure, as JSON bytes. */
  readonly creationFailure: Buffer | null;
  /** What it said last that it does: a head that was away is told it again. */
  readonly does: { readonly phase: string; readonly waitingFor: string } | null;
}

export interface ActorState {
  readonly life: Life | null;
  /** A life that waits: for an older one's end (N1), or for another's on its GPU (N8). */
  readonly next: StartActor | null;
}

export interface JobState {
  readonly start: StartJob;
  readonly processId: string;
  readonly pid: number;
  readonly logPath: string;
  readonly stopping: boolean;
  /** Why this node ends it by itself; the head knows its own reasons. */
  readonly why: string;
  /** A newer attempt that waits for this one's end (N7). */
  readonly next: StartJob | null;
}

export interface EndedActor {
  readonly jobId: string;
  readonly processId: string;
  readonly report: ActorReport;
}

export interface EndedJob {
  readonly processId: string;
  readonly report: JobReport;
}

export interface NodeState {
  readonly hosts: ReadonlyMap<string, HostState>;
  readonly actors: ReadonlyMap<string, ActorState>;
  readonly jobs: ReadonlyMap<string, JobState>;
  readonly endedActors: ReadonlyMap<string, EndedActor>;
  readonly endedJobs: ReadonlyMap<string, EndedJob>;
  readonly bundles: Bundles;
  readonly stopping: boolean;
  /** Unassigned hosts that died one after another. */
  readonly poolDeaths: number;
}

export const emptyNode: NodeState = {
  hosts: new Map(),
  actors: new Map(),
  jobs: new Map(),
  endedActors: new Map(),
  endedJobs: new Map(),
  bundles: new Map(),
  stopping: false,
  poolDeaths: 0,
};

export type NodeEvent =
  /** A message of the head, taken apart by kind. */
  | { readonly kind: "start_actor"; readonly start: StartActor }
  | {
      readonly kind: "stop_actor";
      readonly actorId: string;
      readonly incarnation: number;
      readonly graceMs: number;
      readonly reason: string;
    }
  | { readonly kind: "start_job"; readonly start: StartJob }
  | { readonly kind: "stop_job"; readonly jobId: string; readonly graceMs: number }
  | { readonly kind: "forget_job"; readonly jobId: string }
  | {
      readonly kind: "prepare";
      readonly id: string;
      readonly generation: number;
      readonly bundles: Parameters<typeof import("./bundles.js").prepareBundles>[1]["bundles"];
      readonly ttlMs: number;
    }
  | { readonly kind: "commit"; readonly id: string; readonly generation: number }
  | { readonly kind: "release"; readonly id: string; readonly generation: number }
  /** What hosts say. */
  | {
      readonly kind: "host_registered";
      readonly processId: string;
      readonly pid: number;
      readonly language: Language;
      readonly actor: HostedActor | null;
    }
  | { readonly kind: "host_alive"; readonly processId: string; readonly incarnation: number; readonly pid: number; readonly socket: string }
  | { readonly kind: "host_failed"; readonly processId: string; readonly failure: Buffer }
  | { readonly kind: "host_exit"; readonly processId: string; readonly reason: "shutdown" | "self" | "orphaned" }
  | { readonly kind: "host_phase"; readonly processId: string; readonly phase: string; readonly waitingFor: string }
  /** The head has taken us in, for the first time or again. */
  | { readonly kind: "welcomed" }
  /** It neither answers nor computes. */
  | { readonly kind: "host_hangs"; readonly processId: string; readonly message: string }
  /** What becomes of processes. */
  | { readonly kind: "launched"; readonly processId: string; readonly pid: number; readonly logPath: string }
  | { readonly kind: "launch_failed"; readonly processId: string; readonly message: string }
  /** It and all that came from it are gone (N2). */
  | { readonly kind: "ended"; readonly processId: string; readonly pid: number; readonly death: HowItDied }
  /** A process of the daemon's earlier life, found alive. */
  | {
      readonly kind: "adopted_actor";
      readonly processId: string;
      readonly pid: number;
      readonly language: Language;
      readonly start: StartActor;
    }
  | { readonly kind: "adopted_host"; readonly processId: string; readonly language: Language }
  | { readonly kind: "adopted_job"; readonly processId: string; readonly pid: number; readonly logPath: string; readonly start: StartJob }
  | { readonly kind: "adopted_bundles"; readonly bundles: Bundles }
  | { readonly kind: "timer"; readonly timer: TimerKey }
  /** Starts nothing from here on (N5) and ends what runs. */
  | { readonly kind: "stop"; readonly graceMs: number; readonly reason: string };

export type TimerKey =
  | { readonly of: "creation"; readonly processId: string }
  | { readonly of: "reservation"; readonly id: string; readonly generation: number }
  | { readonly of: "pool" };

export type NodeEffect =
  | { readonly kind: "report"; readonly up: NodeUp }
  /** Start a host; `start` is whose it will be from exec on, null for the pool. */
  | { readonly kind: "launch_host"; readonly processId: string; readonly language: Language; readonly start: StartActor | null }
  | { readonly kind: "launch_driver"; readonly processId: string; readonly start: StartJob }
  /** Record durably whose the process is, then tell it. */
  | { readonly kind: "assign"; readonly processId: string; readonly start: StartActor }
  /** Ask (a host) or signal (a driver), wait, kill the tree. Repeated with less grace, the shorter one counts. */
  | { readonly kind: "end"; readonly processId: string; readonly graceMs: number; readonly reason: string }
  /** The record of an ended process is no longer needed. */
  | { readonly kind: "drop_record"; readonly processId: string }
  | { readonly kind: "release_ports"; readonly holder: string }
  | { readonly kind: "free_job"; readonly jobId: string }
  | { readonly kind: "save_bundles" }
  | { readonly kind: "timer"; readonly timer: TimerKey; readonly delayMs: number };
