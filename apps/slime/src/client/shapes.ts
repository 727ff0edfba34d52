/** What the head's management API answers, as far as the command line reads it; the whole shapes are held by test/golden/job.json and status.json. */
export interface JobView {
  readonly job_id: string;
  readonly submission_id: string | null;
  readonly type: string;
  readonly entrypoint: string;
  readonly state: string;
  readonly message: string;
  readonly start_time: number | null;
  readonly end_time: number | null;
  readonly submitted_at: number;
  readonly driver_exit_code: number | null;
  readonly driver_signal: string | null;
  readonly driver_node_id: string | null;
  readonly attempt: number;
  readonly attempts_max: number;
  readonly phase: string | null;
  readonly waiting_for: string | null;
  readonly working_dir: string | null;
  readonly output_dir: string | null;
  readonly log_paths: readonly string[];
}

export interface NodeView {
  readonly node_id: string;
  readonly state: string;
  readonly reason: string | null;
  readonly hostname: string;
  readonly address: string;
  readonly silent_ms: number;
  readonly log_dir: string;
  readonly cpu_fraction: number | null;
  readonly resources: Readonly<Record<string, number>>;
  readonly available: Readonly<Record<string, number>>;
  readonly gpus: readonly {
    readonly index: number;
    readonly name: string;
    readonly virtual: boolean;
    readonly held: number;
    readonly held_by: readonly string[];
    readonly utilisation: number | null;
    readonly memory_used_mib: number | null;
    readonly memory_mib: number;
  }[];
}

export interface ActorView {
  readonly actor_id: string;
  readonly name: string;
  readonly class_name: string;
  readonly state: string;
  readonly incarnation: number;
  readonly restarts: number;
  readonly job_id: string;
  readonly node_id: string | null;
  readonly pid: number | null;
  readonly gpu_indices: readonly number[];
  readonly waiting: readonly string[];
  readonly phase: string | null;
  readonly waiting_for: string | null;
  readonly death: { readonly reason: string; readonly message: string } | null;
}

export interface GroupView {
  readonly placement_group_id: string;
  readonly name: string;
  readonly job_id: string;
  readonly state: string;
  readonly strategy: string;
  readonly bundles: readonly {
    readonly node_id: string | null;
    readonly resources: Readonly<Record<string, number>>;
    readonly gpu_indices: readonly number[];
  }[];
  readonly waiting: readonly string[];
}

export interface StatusView {
  readonly cluster_id: string;
  readonly epoch: number;
  readonly address: string;
  readonly http_address: string;
  readonly read_only: string | null;
  readonly resources: Readonly<Record<string, { readonly total: number; readonly used: number }>>;
  readonly nodes: readonly NodeView[];
  readonly actors: readonly ActorView[];
  readonly placement_groups: readonly GroupView[];
  readonly jobs: readonly JobView[];
}

/** True once a job's state changes no more. */
export const jobIsOver = (job: Pick<JobView, "state">): boolean =>
  job.state === "SUCCEEDED" || job.state === "FAILED" || job.state === "STOPPED";
