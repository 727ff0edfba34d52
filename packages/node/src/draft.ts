import type { GpuDevice } from "@slime/platform";
import type { PlannedBundle } from "@slime/rpc/control";
import { type GpuShares, gpuShares, reservedShares, sumShares } from "./bundles.js";
import { nodeLimits } from "./limits.js";
import type { ActorState, EndedActor, EndedJob, HostState, JobState, Language, Life, NodeEffect, NodeState } from "./node-state.js";

/** What the machine is told of the world beside the event; all of it injected, so that a run replays. */
export interface StepContext {
  readonly nodeId: string;
  readonly gpus: readonly GpuDevice[];
  /** Hosts kept ready for actors. */
  readonly poolSize: number;
  readonly newProcessId: () => string;
  readonly wallMs: () => number;
}

/** A state being changed within one step: copies, so that the state before stays as it was. */
export interface Draft {
  readonly context: StepContext;
  readonly hosts: Map<string, HostState>;
  readonly actors: Map<string, ActorState>;
  readonly jobs: Map<string, JobState>;
  readonly endedActors: Map<string, EndedActor>;
  readonly endedJobs: Map<string, EndedJob>;
  bundles: NodeState["bundles"];
  stopping: boolean;
  poolDeaths: number;
  readonly effects: NodeEffect[];
}

/** Copies of a state, to be changed in one step. */
export function draftOf(state: NodeState, context: StepContext): Draft {
  return {
    context,
    hosts: new Map(state.hosts),
    actors: new Map(state.actors),
    jobs: new Map(state.jobs),
    endedActors: new Map(state.endedActors),
    endedJobs: new Map(state.endedJobs),
    bundles: state.bundles,
    stopping: state.stopping,
    poolDeaths: state.poolDeaths,
    effects: [],
  };
}

/** The state a draft has become. */
export function stateOf(draft: Draft): NodeState {
  const { context: _context, effects: _effects, ...state } = draft;
  return state;
}

/** The actor whose life runs in this process. */
export function actorIn(
  draft: Draft,
  processId: string,
): { readonly actorId: string; readonly actor: ActorState; readonly life: Life } | null {
  for (const [actorId, actor] of draft.actors) {
    if (actor.life?.processId === processId) return { actorId, actor, life: actor.life };
  }
  return null;
}

/** Puts a life in an actor's place; null when it is over. */
export function setLife(draft: Draft, actorId: string, life: Life | null): void {
  const next = draft.actors.get(actorId)?.next ?? null;
  if (life === null && next === null) draft.actors.delete(actorId);
  else draft.actors.set(actorId, { life, next });
}

/** Takes a waiting start back. */
export function dropNext(draft: Draft, actorId: string): void {
  const life = draft.actors.get(actorId)?.life ?? null;
  if (life === null) draft.actors.delete(actorId);
  else draft.actors.set(actorId, { life, next: null });
}

/**
 * Shares held by actors outside of placement groups; those inside use their group's, for as long as it is reserved here.
 * @param wanted a reservation about to be made, which then speaks for the actors inside it.
 */
export function sharesOutside(
  draft: Draft,
  wanted: { readonly id: string; readonly bundles: readonly PlannedBundle[] } = { id: "", bundles: [] },
): GpuShares {
  const covered = ({ start }: Life): boolean => {
    const groupId = start.spec?.placementGroupId ?? "";
    if (groupId === "") return false;
    const reserved = [...(draft.bundles.get(groupId)?.bundles ?? []), ...(wanted.id === groupId ? wanted.bundles : [])];
    return start.gpuIndices.every((gpu) =>
      reserved.some((bundle) => bundle.index === start.spec?.bundleIndex && bundle.gpuIndices.includes(gpu)),
    );
  };
  return sumShares([...draft.actors.values()].flatMap(({ life }) => (life === null || covered(life) ? [] : [sharesOf(life)])));
}

/** Shares that lives hold, whoever promised them; with `ending`, only those that are on their way out. */
export function sharesLived(draft: Draft, ending: boolean): GpuShares {
  return sumShares(
    [...draft.actors.values()].flatMap(({ life }) => (life === null || (ending && life.phase !== "ending") ? [] : [sharesOf(life)])),
  );
}

function sharesOf({ start }: Life): GpuShares {
  return gpuShares(start.spec?.resources["GPU"] ?? 0, start.gpuIndices);
}

/** All shares that an actor outside of groups must not touch. */
export function sharesTaken(draft: Draft): GpuShares {
  return sumShares([reservedShares(draft.bundles), sharesOutside(draft)]);
}

/** Starts hosts until the pool is full, unless the node stops or hosts keep dying. Python hosts are not kept: they start fast. */
export function fillPool(draft: Draft): void {
  if (draft.stopping || draft.poolDeaths >= nodeLimits.poolDeathsMax) return;
  const ready = [...draft.hosts.values()].filter(
    (host) => host.kind === "idle" || (host.kind === "starting" && host.actorId === null),
  ).length;
  for (let missing = draft.context.poolSize - ready; missing > 0; missing--) startHost(draft, "node", null);
}

/** Starts one host and returns its process id. */
export function startHost(draft: Draft, language: Language, forActor: Extract<NodeEffect, { kind: "launch_host" }>["start"]): string {
  const processId = draft.context.newProcessId();
  draft.hosts.set(processId, { kind: "starting", language, actorId: forActor?.spec?.actorId ?? null });
  draft.effects.push({ kind: "launch_host", processId, language, start: forActor });
  return processId;
}

/** Keeps the newest ends only, should a head never forget its jobs. */
export function bounded<V extends { readonly processId: string }>(draft: Draft, map: Map<string, V>): void {
  for (const [key, ended] of map) {
    if (map.size <= nodeLimits.endedMax) return;
    map.delete(key);
    draft.effects.push({ kind: "drop_record", processId: ended.processId });
  }
}
