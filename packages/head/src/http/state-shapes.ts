/**
 * The shapes of job and cluster state as JSON: what `slime status --json`, `GET /api/jobs/` and dashboards read. Field names are part of the product and held
 * by test/golden/job.json and test/golden/status.json. Jobs keep the names of Ray's JobDetails, so that its client reads them; ours come after.
 */
import type { ActorRecord, GroupRecord, JobRecord, NodeRecord } from "../state/records.js";

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
  /** Where its driver says that its results lie. */
  readonly output_dir: string | null;
  readonly log_paths: readonly string[];
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
