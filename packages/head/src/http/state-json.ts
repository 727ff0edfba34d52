/**
 * Job and cluster state as JSON: what `slime status --json`, `GET /api/jobs/` and dashboards read. Field names are part of the product and held by
 * test/golden/job.json and test/golden/status.json. Jobs keep the names of Ray's JobDetails, so that its client reads them; ours come after.
 */

import type { Death } from "@slime/rpc/control";
import { resourceUnit } from "@slime/scheduler";
import { clusterView, holdings, shareOf } from "../reduce/cluster-view.js";
import type { HeadState } from "../state/head-state.js";
import { type ActorRecord, type GroupRecord, type JobRecord, jobEnded, type NodeRecord } from "../state/records.js";

export interface JobJson {
  readonly type: "SUBMISSION" | "DRIVER";
  readonly job_id: string;
  readonly submission_id: string | null;
  readonly entrypoint: string;
  /** Ray's words: a job that is STOPPING is still RUNNING. */
  readonly status: "PENDING" | "RUNNING" | "SUCCEEDED" | "FAILED" | "STOPPED";
  /** Ours: as `status`, and STOPPING. */
  readonly state: JobRecord["state"];
  readonly message: string;
  readonly error_type: string | null;
  /** Milliseconds since 1970. */
  readonly start_time: number | null;
  readonly end_time: number | null;
  readonly metadata: Readonly<Record<string, string>>;
  readonly runtime_env: Readonly<Record<string, unknown>>;
  readonly driver_info: { readonly id: string; readonly node_ip_address: string; readonly pid: string } | null;
  readonly driver_agent_http_address: string | null;
  readonly driver_node_id: string | null;
  readonly driver_exit_code: number | null;
  readonly driver_signal: string | null;
  readonly submitted_at: number;
  readonly attempt: number;
  readonly attempts_max: number;
  readonly phase: string | null;
  readonly waiting_for: string | null;
  readonly working_dir: string | null;
  readonly log_paths: readonly string[];
}

export function jobJson(state: HeadState, job: JobRecord): JobJson {
  const node = state.nodes.get(job.lastNodeId);
  const phase = state.phases.get(job.jobId);
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
    log_paths: job.logPaths,
  };
}

/** Amounts as people write them: 0.4 of a GPU, MiB of memory. */
export type AmountsJson = Readonly<Record<string, number>>;

export interface StatusJson {
  readonly version: 1;
  readonly cluster_id: string;
  readonly epoch: number;
  readonly address: string;
  readonly http_address: string;
  readonly started_at: number;
  /** Why the head only reads, or null. */
  readonly read_only: string | null;
  readonly resources: Readonly<Record<string, { readonly total: number; readonly used: number }>>;
  readonly nodes: readonly NodeJson[];
  readonly actors: readonly ActorJson[];
  readonly placement_groups: readonly GroupJson[];
  readonly jobs: readonly JobJson[];
}

export interface NodeJson {
  readonly node_id: string;
  readonly state: NodeRecord["state"];
  readonly reason: string | null;
  readonly hostname: string;
  readonly address: string;
  readonly pid: number;
  readonly incarnation: number;
  readonly joined_at: number;
  readonly silent_ms: number;
  readonly loop_lag_ms: number | null;
  readonly cpu_fraction: number | null;
  readonly memory_free_mib: number | null;
  readonly labels: Readonly<Record<string, string>>;
  readonly resources: AmountsJson;
  readonly available: AmountsJson;
  readonly gpus: readonly GpuJson[];
  readonly log_dir: string;
}

export interface GpuJson {
  readonly index: number;
  readonly uuid: string;
  readonly name: string;
  readonly memory_mib: number;
  readonly virtual: boolean;
  /** Share that somebody holds, 0 to 1. */
  readonly held: number;
  readonly held_by: readonly string[];
  readonly utilisation: number | null;
  readonly memory_used_mib: number | null;
  readonly power_watts: number | null;
}

export interface ActorJson {
  readonly actor_id: string;
  readonly name: string;
  readonly class_name: string;
  readonly state: ActorRecord["state"];
  readonly incarnation: number;
  readonly restarts: number;
  readonly job_id: string;
  readonly node_id: string | null;
  readonly pid: number | null;
  readonly resources: AmountsJson;
  readonly gpu_indices: readonly number[];
  readonly placement_group_id: string | null;
  readonly bundle: number | null;
  readonly lifetime: string;
  readonly waiting: readonly string[];
  readonly phase: string | null;
  readonly waiting_for: string | null;
  readonly created_at: number;
  readonly death: DeathJson | null;
}

export interface DeathJson {
  readonly reason: string;
  readonly message: string;
  readonly pid: number | null;
  readonly exit_code: number | null;
  readonly signal: string | null;
  readonly oom: boolean;
  readonly stderr_tail: readonly string[];
  readonly at: number;
}

export interface GroupJson {
  readonly placement_group_id: string;
  readonly name: string;
  readonly job_id: string;
  readonly state: GroupRecord["state"];
  readonly strategy: string;
  readonly generation: number;
  readonly bundles: readonly {
    readonly bundle: number;
    readonly resources: AmountsJson;
    readonly node_id: string | null;
    readonly address: string | null;
    readonly gpu_indices: readonly number[];
    readonly gpu_uuids: readonly string[];
  }[];
  readonly waiting: readonly string[];
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
