import { type DeathRecord, SlimeError } from "@slime/core";
import { fromFailure, readFailure } from "@slime/rpc";
import type { ActorInfo, Death, NodeInfo, PlacementGroupInfo } from "@slime/rpc/control";
import type { ActorView } from "../actor-view.js";
import type { ActorState } from "../handle-types.js";
import type { NodeView, PlacementGroupState, PlacementGroupView, PlacementRow } from "../ports.js";
import { resourceAmounts } from "../resources.js";

/** The control plane's messages as this package's own types; wire conventions ("" and 0 for absent) end here. */
export function actorView(info: ActorInfo): ActorView {
  return {
    actorId: info.actorId,
    jobId: info.jobId,
    className: info.className,
    name: info.name,
    state: info.state as ActorState,
    incarnation: info.incarnation,
    restarts: info.restarts,
    socket: info.socket === "" ? null : info.socket,
    nodeId: info.nodeId === "" ? null : info.nodeId,
    pid: info.pid === 0 ? null : info.pid,
    waiting: info.waiting,
    death: info.death === undefined ? null : deathRecord(info.death),
    creationFailure: failureIn(info.creationFailure),
  };
}

function deathRecord(death: Death): DeathRecord {
  return {
    reason: death.reason as DeathRecord["reason"],
    message: death.message,
    pid: death.pid ?? null,
    exitCode: death.exitCode ?? null,
    signal: death.signal ?? null,
    oom: death.oom,
    stderrTail: death.stderrTail,
    nodeId: death.nodeId === "" ? null : death.nodeId,
    atMs: death.atMs,
  };
}

/** A failure in its wire form (JSON bytes); null for none. */
export function failureIn(bytes: Uint8Array): SlimeError | null {
  if (bytes.length === 0) return null;
  try {
    return fromFailure(readFailure(JSON.parse(Buffer.from(bytes).toString("utf8"))));
  } catch (error) {
    return new SlimeError(
      "codec.refused",
      "the head sent a failure that is no JSON",
      { where: "control", reason: "JSON" },
      { cause: error },
    );
  }
}

/** Bundles keep the order they came in: rank order. */
export function placementGroupView(info: PlacementGroupInfo): PlacementGroupView {
  const rows = info.bundles.map((bundle): PlacementRow => {
    const gpus = bundle.gpuIndices.map((index, at) => ({ index, uuid: bundle.gpuUuids[at] ?? "" }));
    return {
      bundle: bundle.index,
      nodeId: bundle.nodeId,
      address: bundle.address,
      gpuIndex: gpus[0]?.index ?? null,
      gpuUuid: gpus[0]?.uuid ?? null,
      gpus,
    };
  });
  return {
    placementGroupId: info.placementGroupId,
    state: info.state as PlacementGroupState,
    generation: info.generation,
    rows,
    waiting: info.waiting,
    failure: failureIn(info.failure),
  };
}

/** Amounts in whole resources, not units. */
export function nodeView(info: NodeInfo): NodeView {
  const { nodeId, state, hostname, address, pid, resources, available, gpus, labels } = info;
  return {
    nodeId,
    state: state as NodeView["state"],
    hostname,
    address,
    pid,
    resources: resourceAmounts(resources),
    available: resourceAmounts(available),
    gpus,
    labels,
  };
}
