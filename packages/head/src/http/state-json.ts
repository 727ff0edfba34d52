/** Job and cluster state as the JSON of state-shapes.ts. */
import { jobOutputKey } from "@slime/rpc";
import type { Death } from "@slime/rpc/control";
import { resourceUnit } from "@slime/scheduler";
import { clusterView, holdings, shareOf } from "../reduce/cluster-view.js";
import type { HeadState } from "../state/head-state.js";
import { type ActorRecord, type GroupRecord, type JobRecord, jobEnded } from "../state/records.js";
import type { ActorJson, AmountsJson, DeathJson, GroupJson, JobJson, NodeJson, StatusJson } from "./state-shapes.js";

/** One job; what is not known yet, or never was, is null rather than 0 or an empty string. */
export function jobJson(state: HeadState, job: JobRecord): JobJson {
  const node = state.nodes.get(job.lastNodeId);
  const phase = state.phases.get(job.jobId);
  const output = state.kv.get(jobOutputKey(job.jobId));
  return {
    type: job.type,
    job_id: job.jobId,
    submission_id: job.submissionId || null,
    entrypoint: job.spec.entrypoint,
    status: job.state === "STOPPING" ? "RUNNING" : job.state,
    state: job.state,
    message: job.message,
    error_type: job.errorType || null,
    start_time: job.startedAtMs || null,
    end_time: job.endedAtMs || null,
    metadata: job.spec.metadata,
    runtime_env: job.runtimeEnv,
    driver_info: job.pid === 0 ? null : { id: job.jobId, node_ip_address: node?.address ?? "", pid: String(job.pid) },
    driver_agent_http_address: null,
    driver_node_id: job.lastNodeId || null,
    driver_exit_code: job.exitCode,
    driver_signal: job.signal,
    submitted_at: job.submittedAtMs,
    attempt: job.attempt,
    attempts_max: job.spec.attemptsMax,
    phase: phase?.phase ?? null,
    waiting_for: phase?.waitingFor || null,
    working_dir: job.spec.cwd || null,
    output_dir: output === undefined ? null : Buffer.from(output).toString("utf8"),
    log_paths: job.logPaths,
  };
}

/** The whole cluster. Ended jobs, dead actors and removed groups are listed too, newest last, at most `endedMax` of each. */
export function statusJson(
  state: HeadState,
  about: { readonly nowMs: number; readonly readOnly: string | null },
  endedMax = 100,
): StatusJson {
  const nodes = nodesJson(state, about.nowMs);
  const present = nodes.filter((node) => node.state === "ALIVE" || node.state === "SUSPECT");
  const resources: Record<string, { total: number; used: number }> = {};
  for (const node of present) {
    for (const [name, total] of Object.entries(node.resources)) {
      const sum = resources[name] ?? { total: 0, used: 0 };
      resources[name] = sum;
      sum.total = round(sum.total + total);
      sum.used = round(sum.used + total - (node.available[name] ?? 0));
    }
  }
  return {
    version: 1,
    cluster_id: state.clusterId,
    epoch: state.epoch,
    address: state.address,
    http_address: state.httpAddress,
    started_at: state.startedAtMs,
    read_only: about.readOnly,
    resources,
    nodes,
    actors: [...state.actors.where("life", "dead").slice(-endedMax), ...state.actors.where("life", "live").toSorted(byOrder)].map((actor) =>
      actorJson(state, actor),
    ),
    placement_groups: [...state.groups.where("life", "over").slice(-endedMax), ...state.groups.where("life", "live").toSorted(byOrder)].map(
      groupJson,
    ),
    jobs: [...state.jobs.values()]
      .filter((job) => !jobEnded(job))
      .concat(state.jobs.where("life", "ended").slice(-endedMax))
      .sort(byOrder)
      .map((job) => jobJson(state, job)),
  };
}

/** All nodes that are on record, LOST and LEFT ones too. `nowMs` is the head's time, as `heardHeadMs` is. */
export function nodesJson(state: HeadState, nowMs: number): readonly NodeJson[] {
  const free = new Map(clusterView(state).nodes.map((node) => [node.nodeId, node.free]));
  const held = holdings(state);
  return [...state.nodes.values()].map((node) => {
    const live = state.links.get(node.nodeId);
    const beat = live?.heartbeat ?? null;
    return {
      node_id: node.nodeId,
      state: node.state,
      reason: node.reason || null,
      hostname: node.hostname,
      address: node.address,
      pid: node.pid,
      incarnation: node.incarnation,
      joined_at: node.joinedAtMs,
      silent_ms: live === undefined ? 0 : Math.round(nowMs - live.heardHeadMs),
      loop_lag_ms: beat?.loopLagMs ?? null,
      cpu_fraction: beat?.cpuFraction ?? null,
      memory_free_mib: beat?.memoryFreeMib ?? null,
      labels: node.labels,
      resources: amounts(node.resources),
      available: amounts(free.get(node.nodeId) ?? {}),
      gpus: node.gpus.map((gpu) => {
        const here = held.filter((holding) => holding.nodeId === node.nodeId && holding.gpuIndices.includes(gpu.index));
        const use = beat?.gpus.find((entry) => entry.index === gpu.index);
        return {
          index: gpu.index,
          uuid: gpu.uuid,
          name: gpu.name,
          memory_mib: gpu.memoryMib,
          virtual: gpu.virtual,
          held: here.reduce((sum, holding) => sum + shareOf(holding, gpu.index), 0) / resourceUnit,
          held_by: here.map((holding) => holding.what),
          utilisation: use?.utilisation ?? null,
          memory_used_mib: use?.memoryUsedMib ?? null,
          power_watts: use?.powerWatts ?? null,
        };
      }),
      log_dir: node.logDir,
    };
  });
}

/** One actor; amounts in whole units, its death as the daemon told it. */
export function actorJson(state: HeadState, actor: ActorRecord): ActorJson {
  const phase = state.phases.get(actor.actorId);
  return {
    actor_id: actor.actorId,
    name: actor.spec.name,
    class_name: actor.spec.className,
    state: actor.state,
    incarnation: actor.incarnation,
    restarts: actor.restarts,
    job_id: actor.spec.jobId,
    node_id: actor.place?.nodeId ?? null,
    pid: actor.pid || null,
    resources: amounts(actor.spec.resources),
    gpu_indices: actor.place?.gpuIndices ?? [],
    placement_group_id: actor.spec.placementGroupId || null,
    bundle: actor.place?.bundle ?? null,
    lifetime: actor.spec.lifetime,
    waiting: actor.waiting,
    phase: phase?.phase ?? null,
    waiting_for: phase?.waitingFor || null,
    created_at: actor.createdAtMs,
    death: actor.death === null ? null : deathJson(actor.death),
  };
}

function deathJson(death: Death): DeathJson {
  return {
    reason: death.reason,
    message: death.message,
    pid: death.pid ?? null,
    exit_code: death.exitCode ?? null,
    signal: death.signal ?? null,
    oom: death.oom,
    stderr_tail: death.stderrTail,
    at: death.atMs,
  };
}

/** One placement group. Every bundle is listed: those without a place, of a pending group or after a lost node, with null for the node. */
export function groupJson(group: GroupRecord): GroupJson {
  return {
    placement_group_id: group.placementGroupId,
    name: group.name,
    job_id: group.jobId,
    state: group.state,
    strategy: group.strategy,
    generation: group.generation,
    bundles:
      group.plan.length > 0
        ? [
            ...group.plan.map((bundle) => ({
              bundle: bundle.index,
              resources: amounts(bundle.resources),
              node_id: bundle.nodeId,
              address: bundle.address,
              gpu_indices: bundle.gpuIndices,
              gpu_uuids: bundle.gpuUuids,
            })),
            ...group.bundles.flatMap((resources, bundle) =>
              group.plan.some((planned) => planned.index === bundle) ? [] : [unplaced(bundle, resources)],
            ),
          ]
        : group.bundles.map((resources, bundle) => unplaced(bundle, resources)),
    waiting: group.waiting,
  };
}

const unplaced = (bundle: number, resources: Readonly<Record<string, number>>) => ({
  bundle,
  resources: amounts(resources),
  node_id: null,
  address: null,
  gpu_indices: [],
  gpu_uuids: [],
});

function amounts(resources: Readonly<Record<string, number>>): AmountsJson {
  return Object.fromEntries(Object.entries(resources).map(([name, units]) => [name, units / resourceUnit]));
}

const byOrder = (a: { readonly order: number }, b: { readonly order: number }): number => a.order - b.order;
const round = (value: number): number => Math.round(value * resourceUnit) / resourceUnit;
