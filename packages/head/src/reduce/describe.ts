import type { ActorInfo, NodeInfo, PlacementGroupInfo } from "@slime/rpc/control";
import { compareNodes, gpuResource, type Resources, sumResources } from "@slime/scheduler";
import type { HeadState } from "../state/head-state.js";
import type { ActorRecord, GroupRecord, NodeRecord } from "../state/records.js";
import { clusterView } from "./cluster-view.js";

/** An actor as clients see it. */
export function actorInfo(actor: ActorRecord): ActorInfo {
  return {
    actorId: actor.actorId,
    state: actor.state,
    incarnation: actor.incarnation,
    socket: actor.state === "ALIVE" ? actor.socket : "",
    nodeId: actor.place?.nodeId ?? "",
    className: actor.spec.className,
    name: actor.spec.name,
    death: actor.death ?? undefined,
    creationFailure: actor.creationFailure,
    waiting: [...actor.waiting],
    jobId: actor.spec.jobId,
    pid: actor.pid,
    restarts: actor.restarts,
  };
}

/** A group as clients see it; bundles only when they can be used. */
export function groupInfo(group: GroupRecord): PlacementGroupInfo {
  const usable = group.state === "CREATED" || group.state === "RESCHEDULING";
  return {
    placementGroupId: group.placementGroupId,
    state: group.state,
    generation: group.generation,
    bundles: usable ? [...group.plan] : [],
    waiting: [...group.waiting],
    failure: group.failure,
  };
}

/** Every node there is or was, in rank order, with what is free of it. */
export function nodeInfos(state: HeadState): NodeInfo[] {
  const free = new Map(clusterView(state).nodes.map((node) => [node.nodeId, node.free]));
  return [...state.nodes.values()].sort(compareNodes).map((node) => nodeInfo(node, free.get(node.nodeId) ?? {}));
}

function nodeInfo(node: NodeRecord, free: Readonly<Record<string, number>>): NodeInfo {
  return {
    nodeId: node.nodeId,
    state: node.state,
    hostname: node.hostname,
    address: node.address,
    pid: node.pid,
    incarnation: node.incarnation,
    resources: { ...node.resources },
    available: { ...sumResources([free]) },
    gpus: [...node.gpus],
    labels: { ...node.labels },
    nodeSocket: node.nodeSocket,
    bootId: node.bootId,
  };
}

/** What to do about a wish that no cluster of these nodes could hold. */
export function wayOut(state: HeadState, wanted: Resources): string {
  const gpus = (wanted[gpuResource] ?? 0) > 0 ? " (--num-gpus N declares virtual GPUs where there are none)" : "";
  return `join a machine that has it with \`slime-worker join ${state.address}\`${gpus}, or ask for less`;
}
