/**
 * The laws a cluster keeps, watched from outside while it runs: what is broken is kept as text that says when, by whom and how.
 * L4 at most one process lives for one incarnation, one for one actor on a machine, incarnations only grow, DEAD is final; L5 no GPU is held
 * beyond its whole: not by processes of a machine, not by a daemon's promises, not in the head's plans; L6 what was acknowledged is there
 * after a crash; L7 everything comes to rest where it belongs; L8 an older head's words change nothing; L9 nothing is left.
 */
import type { Head, MemoryDisk } from "@slime/head";
import { gpuShares, type NodeState, reservedShares, sumShares } from "@slime/node/machine";
import type { Names } from "./names.js";
import type { SimMachine } from "./sim-machine.js";
import type { SimProcess } from "./sim-process.js";

type HeadState = Head["state"];
type ActorRecord = NonNullable<ReturnType<HeadState["actors"]["get"]>>;
type GroupRecord = NonNullable<ReturnType<HeadState["groups"]["get"]>>;
type JobRecord = NonNullable<ReturnType<HeadState["jobs"]["get"]>>;

const wholeGpu = 10_000;
const jobEnded = ({ state }: { readonly state: string }): boolean => state === "SUCCEEDED" || state === "FAILED" || state === "STOPPED";

export interface LawsView {
  readonly nowMs: () => number;
  readonly machines: () => Iterable<SimMachine>;
  readonly names: Names;
}

/** Watches one cluster. */
export class Laws {
  readonly broken: string[] = [];
  readonly #view: LawsView;
  readonly #incarnations = new Map<string, number>();
  readonly #dead = new Set<string>();
  readonly #lost = new Set<string>();
  readonly #endedJobs = new Map<string, string>();
  readonly #acknowledged = {
    jobs: new Set<string>(),
    actors: new Set<string>(),
    groups: new Set<string>(),
    kv: new Map<string, Set<string>>(),
  };

  constructor(view: LawsView) {
    this.#view = view;
  }

  /** Something broke that only its author could see. */
  fail(law: string, how: string): void {
    this.#breaks(law, how);
  }

  #breaks(law: string, how: string): void {
    const line = this.#view.names.shown(`${law} at ${this.#view.nowMs()} ms: ${how}`);
    if (this.broken.length < 100 && !this.broken.includes(line)) this.broken.push(line);
  }

  /** A life's node was lost with it: if it lives on there, it is ended when the node is back, and nobody waits for that. */
  lost(id: string, life: number): void {
    this.#lost.add(`${id}#${life}`);
  }

  acknowledged(table: "jobs" | "actors" | "groups", id: string): void {
    this.#acknowledged[table].add(id);
  }

  /** A key's value was written; until the write is acknowledged the older ones may be there as well. */
  kvWritten(key: string, value: string, acknowledged: boolean): void {
    const before = this.#acknowledged.kv.get(key);
    if (acknowledged) this.#acknowledged.kv.set(key, new Set([value]));
    else before?.add(value);
  }

  /** A process belongs to an actor from now on: L4 and L5 at the level of processes. */
  occupied(machine: SimMachine, process: SimProcess): void {
    const { actor } = process;
    if (actor === null) return;
    const actorId = actor.spec?.actorId ?? "";
    for (const other of this.#view.machines()) {
      for (const living of other.processes()) {
        if (living === process || living.actor?.spec?.actorId !== actorId) continue;
        const same = living.actor.incarnation === actor.incarnation;
        if (same || other === machine)
          this.#breaks(
            "L4",
            `${actorId}#${actor.incarnation} begins on ${machine.name} while ${actorId}#${living.actor.incarnation} lives on ${other.name}`,
          );
      }
    }
    for (const [gpu, units] of sumShares(machine.processes().map(sharesOf))) {
      if (units <= wholeGpu) continue;
      const holders = machine.processes().filter((living) => sharesOf(living).has(gpu));
      this.#breaks(
        "L5",
        `GPU ${gpu} of ${machine.name} is held ${units / wholeGpu} times by ${holders.map((living) => `${living.actor?.spec?.actorId}#${living.actor?.incarnation}`).join(", ")}`,
      );
    }
  }

  /** A daemon has judged: L5 at the level of its promises. */
  judged(machine: SimMachine, state: NodeState): void {
    const outside = [...state.actors.values()].flatMap(({ life }) => {
      const spec = life?.start.spec;
      return life === null || spec === undefined || spec.placementGroupId !== ""
        ? []
        : [gpuShares(spec.resources["GPU"] ?? 0, life.start.gpuIndices)];
    });
    for (const [gpu, units] of sumShares([reservedShares(state.bundles), ...outside])) {
      if (units > wholeGpu) this.#breaks("L5", `the daemon of ${machine.name} promised GPU ${gpu} ${units / wholeGpu} times`);
    }
  }

  /** A commit of the head: L4, L5 and L7 in what is durable. */
  written(tables: MemoryDisk["tables"]): void {
    const actors = [...tables.actors.values()] as readonly ActorRecord[];
    for (const actor of actors) {
      const known = this.#incarnations.get(actor.actorId) ?? 0;
      if (actor.incarnation < known) this.#breaks("L4", `${actor.actorId} went from incarnation ${known} back to ${actor.incarnation}`);
      this.#incarnations.set(actor.actorId, actor.incarnation);
      if (actor.state === "DEAD") this.#dead.add(actor.actorId);
      else if (this.#dead.has(actor.actorId)) this.#breaks("L4", `${actor.actorId} was DEAD and is ${actor.state}`);
    }
    for (const job of tables.jobs.values() as Iterable<JobRecord>) {
      const ended = this.#endedJobs.get(job.jobId);
      if (ended !== undefined && ended !== job.state) this.#breaks("L7", `${job.jobId} was ${ended} and is ${job.state}`);
      if (jobEnded(job)) this.#endedJobs.set(job.jobId, job.state);
    }
    const held = new Map<string, number>();
    const hold = (nodeId: string, gpuIndices: readonly number[], units: number) => {
      for (const [gpu, share] of gpuShares(units, gpuIndices))
        held.set(`${nodeId} GPU ${gpu}`, (held.get(`${nodeId} GPU ${gpu}`) ?? 0) + share);
    };
    for (const group of tables.groups.values() as Iterable<GroupRecord>)
      for (const bundle of group.plan) hold(bundle.nodeId, bundle.gpuIndices, bundle.resources["GPU"] ?? 0);
    for (const { place, spec } of actors)
      if (place !== null && place.bundle === null) hold(place.nodeId, place.gpuIndices, spec.resources["GPU"] ?? 0);
    for (const [what, units] of held) if (units > wholeGpu) this.#breaks("L5", `the head planned ${what} ${units / wholeGpu} times`);
  }

  /** L6: called once a head has started, and at the end. */
  remembered(state: HeadState): void {
    const { jobs, actors, groups, kv } = this.#acknowledged;
    for (const id of jobs) if (state.jobs.get(id) === undefined) this.#breaks("L6", `job ${id} was acknowledged and is gone`);
    for (const id of actors) if (state.actors.get(id) === undefined) this.#breaks("L6", `actor ${id} was acknowledged and is gone`);
    for (const id of groups)
      if (state.groups.get(id) === undefined) this.#breaks("L6", `placement group ${id} was acknowledged and is gone`);
    for (const [key, values] of kv) {
      const value = state.kv.get(key);
      const found = value === undefined ? null : Buffer.from(value).toString("utf8");
      if (found === null || !values.has(found))
        this.#breaks("L6", `${key} = ${[...values].join(" or ")} was acknowledged; there is ${found ?? "nothing"}`);
    }
  }

  /** L8: what an older head said must have left a daemon's state as it was. */
  staleIgnored(machine: SimMachine, before: unknown, after: unknown): void {
    if (before !== after) this.#breaks("L8", `an older head's words changed what the daemon of ${machine.name} holds`);
  }

  /** Once faults are over and time has passed: L4, L5 and L7 at rest. */
  settled(state: HeadState): void {
    for (const job of state.jobs.values()) this.#jobAtRest(state, job.jobId);
    for (const group of state.groups.values()) {
      if (group.state === "PREPARED" || state.groupSteps.has(group.placementGroupId))
        this.#breaks("L7", `${group.placementGroupId} is still ${group.state} in the middle of a step`);
      if ((group.state === "PENDING" || group.state === "RESCHEDULING") && group.waiting.length === 0)
        this.#breaks("L7", `${group.placementGroupId} is ${group.state} and does not say what it waits for`);
    }
    for (const actor of state.actors.values()) this.#actorAtRest(actor);
    for (const machine of this.#view.machines()) this.#machineAtRest(state, machine);
  }

  #jobAtRest(state: HeadState, jobId: string): void {
    const job = state.jobs.get(jobId);
    if (job === undefined || jobEnded(job)) return;
    if (job.state === "STOPPING" || job.ending !== null) return this.#breaks("L7", `${jobId} is still ${job.state}: ${job.message}`);
    if (job.type === "DRIVER" || job.spec.entrypoint.includes("exits-")) return; // such a driver may just have ended
    if (job.nodeId === null) {
      if (!job.message.startsWith("it waits for a node:")) this.#breaks("L7", `${jobId} is ${job.state} without a node: ${job.message}`);
      return;
    }
    const runs = [...this.#view.machines()].filter((machine) => machine.processes().some((process) => process.job?.spec?.jobId === jobId));
    if (runs.length !== 1 || runs[0]?.nodeId !== job.nodeId)
      this.#breaks(
        "L7",
        `${jobId} is ${job.state} on ${job.nodeId}, its driver lives on ${runs.map((machine) => machine.name).join(", ") || "no machine"}`,
      );
  }

  #actorAtRest(actor: ActorRecord): void {
    const lives = [...this.#view.machines()].flatMap((machine) =>
      machine.processes().flatMap((process) => (process.actor?.spec?.actorId === actor.actorId ? [{ machine, process }] : [])),
    );
    const shown = lives.map(({ machine, process }) => `#${process.actor?.incarnation} on ${machine.name}`).join(", ") || "nothing";
    if (actor.state === "DEAD" || actor.place === null) {
      if (lives.length > 0) this.#breaks("L4", `${actor.actorId} is ${actor.state}, but there lives ${shown}`);
      if (actor.state !== "DEAD" && actor.waiting.length === 0)
        this.#breaks("L7", `${actor.actorId} is ${actor.state} and does not say what it waits for`);
      return;
    }
    if (actor.spec.exportName.includes("dies-after")) return; // never at rest: a life may just have ended
    if (actor.ending !== null) this.#breaks("L7", `${actor.actorId} has not ended: ${actor.ending.message}`);
    const [only] = lives;
    if (lives.length !== 1 || only?.machine.nodeId !== actor.place.nodeId || only.process.actor?.incarnation !== actor.incarnation)
      this.#breaks("L4", `${actor.actorId}#${actor.incarnation} is ${actor.state} on ${actor.place.nodeId}; there lives ${shown}`);
    else if (actor.state !== "ALIVE" && only.process.phase === "alive")
      this.#breaks("L7", `${actor.actorId} lives and is ${actor.state} to the head`);
  }

  #machineAtRest(state: HeadState, machine: SimMachine): void {
    const node = state.nodes.get(machine.nodeId);
    const { daemon } = machine;
    if (daemon === null || !daemon.living) return;
    if (node?.state !== "ALIVE") this.#breaks("L7", `${machine.name} runs a daemon and is ${node?.state ?? "unknown"} to the head`);
    for (const [id, held] of daemon.state.bundles) {
      const group = state.groups.get(id);
      const planned = group?.plan.some((bundle) => bundle.nodeId === machine.nodeId) ?? false;
      if (!planned) this.#breaks("L5", `${machine.name} holds bundles of ${id}, which has none there`);
      else if (!held.committed || held.generation !== group?.generation)
        this.#breaks(
          "L5",
          `${machine.name} holds generation ${held.generation} of ${id}${held.committed ? "" : ", uncommitted"}; the head's is ${group?.generation}`,
        );
    }
    for (const group of state.groups.where("life", "live")) {
      if (
        group.state === "CREATED" &&
        group.plan.some((bundle) => bundle.nodeId === machine.nodeId) &&
        !daemon.state.bundles.has(group.placementGroupId)
      )
        this.#breaks("L5", `${group.placementGroupId} is CREATED, but ${machine.name} holds nothing of it`);
    }
  }

  /** L9: after a stop of the cluster. */
  gone(): void {
    for (const machine of this.#view.machines()) {
      const left = machine.processes().map((process) => process.actor?.spec?.actorId ?? process.job?.spec?.jobId ?? process.processId);
      if (left.length > 0) this.#breaks("L9", `${machine.name} still runs ${left.join(", ")}`);
      if (machine.daemon !== null) this.#breaks("L9", `${machine.name} still has its daemon`);
      if (!machine.gone) continue; // it went down before: the daemon of its next life clears up
      if (machine.records.size > 0 || machine.committedBundles().size > 0)
        this.#breaks(
          "L9",
          `${machine.name} kept records of ${machine.records.size} processes and ${machine.committedBundles().size} reservations`,
        );
    }
  }

  /** L9 for one job: called when the head says it is over. What a lost node brought back is being ended, and is not counted. */
  jobGone(state: HeadState, jobId: string): void {
    for (const machine of this.#view.machines()) {
      const node = state.nodes.get(machine.nodeId);
      if (node === undefined || (node.state !== "ALIVE" && node.state !== "SUSPECT")) continue;
      for (const process of machine.processes()) {
        const spec = process.actor?.spec;
        const stray = this.#lost.has(
          process.job !== null ? `${jobId}#${process.job.attempt}` : `${spec?.actorId}#${process.actor?.incarnation}`,
        );
        if (!stray && (process.job?.spec?.jobId === jobId || (spec?.jobId === jobId && spec.lifetime !== "detached")))
          this.#breaks("L9", `${jobId} is over, but ${spec?.actorId ?? "its driver"} lives on ${machine.name}`);
      }
    }
  }
}

function sharesOf(process: SimProcess): ReadonlyMap<number, number> {
  return process.actor === null ? new Map() : gpuShares(process.actor.spec?.resources["GPU"] ?? 0, process.actor.gpuIndices);
}
