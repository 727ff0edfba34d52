/**
 * Metric names. Cluster metrics are Prometheus's, with our prefix; a run's metrics keep upstream slime's names, so that dashboards and papers compare.
 */

/** Gauges, counters and histograms of the head's `/metrics`: name → [kind, help, labels]. */
export const clusterMetrics = {
  slime_nodes: ["gauge", "Nodes by state", ["state"]],
  slime_actors: ["gauge", "Actors by state", ["state"]],
  slime_placement_groups: ["gauge", "Placement groups by state", ["state"]],
  slime_jobs: ["gauge", "Jobs by state", ["state"]],
  slime_resource_total: ["gauge", "What the nodes have of a resource", ["resource"]],
  slime_resource_used: ["gauge", "What actors, placement groups and drivers hold of a resource", ["resource"]],
  slime_node_silent_seconds: ["gauge", "Time since a node was last heard", ["node"]],
  slime_node_loop_lag_seconds: ["gauge", "Event loop lag of a node's daemon", ["node"]],
  slime_node_cpu_fraction: ["gauge", "CPU use of a node, 0 to 1", ["node"]],
  slime_node_memory_free_bytes: ["gauge", "Free memory of a node", ["node"]],
  slime_node_store_bytes: ["gauge", "Bytes in a node's object store", ["node"]],
  slime_gpu_utilisation: ["gauge", "GPU use, 0 to 1", ["node", "gpu"]],
  slime_gpu_memory_used_bytes: ["gauge", "GPU memory in use", ["node", "gpu"]],
  slime_gpu_power_watts: ["gauge", "GPU power draw", ["node", "gpu"]],
  slime_head_epoch: ["gauge", "Lives of the head", []],
  slime_head_events_total: ["counter", "Events the head has decided on", ["kind"]],
  slime_head_commit_seconds: ["histogram", "Time to make a group of changes durable", []],
  slime_events_dropped_total: ["counter", "Events dropped because a listener was too slow", []],
  slime_http_requests_total: ["counter", "Requests to the management API", ["route", "status"]],
} as const satisfies Readonly<Record<string, readonly ["gauge" | "counter" | "histogram", string, readonly string[]]>>;

export type ClusterMetric = keyof typeof clusterMetrics;

/** A run's metrics by axis, upstream's names. `{}` stands for a number or name; `/*` for the four statistics mean, median, max, min. */
export const runMetrics = {
  "train/step": [
    "train/loss",
    "train/pg_loss",
    "train/entropy_loss",
    "train/pg_clipfrac",
    "train/ppo_kl",
    "train/train_rollout_logprob_abs_diff",
    "train/kl_loss",
    "train/ois",
    "train/tis",
    "train/tis_clipfrac",
    "train/tis_abs",
    "train/opsm_clipfrac",
    "train/grad_norm",
    "train/lr-pg_{}",
    "train/global_batch_size",
    "train/critic-value_loss",
    "train/critic-value_clipfrac",
    "train/critic-grad_norm",
    "train/critic-lr-pg_{}",
  ],
  "rollout/step": [
    "rollout/response_len/*",
    "rollout/zero_std/count_{}",
    "rollout/prefix_cache_hit_rate",
    "rollout/avg_cached_tokens_per_sample",
    "rollout/error_cat/{}",
    "rollout/repetition_frac",
    "rollout/truncated_ratio",
    "rollout/dynamic_filter/drop_{}",
    "rollout/response_lengths",
    "rollout/rewards",
    "rollout/truncated",
    "rollout/raw_reward",
    "rollout/total_lengths",
    "rollout/log_probs",
    "rollout/ref_log_probs",
    "rollout/rollout_log_probs",
    "rollout/returns",
    "rollout/advantages",
    "rollout/values",
    "rollout/kl",
    "rollout/entropy",
    "rollout/round_number",
    "rollout/partition",
    "perf/rollout_time",
    "perf/tokens_per_gpu_per_sec",
    "perf/longest_sample_tokens_per_sec",
    "perf/effective_tokens_per_gpu_per_sec",
    "perf/longest_effective_sample_tokens_per_sec",
    "perf/train_wait_time",
    "perf/train_time",
    "perf/data_preprocess_time",
    "perf/ref_log_probs_time",
    "perf/log_probs_time",
    "perf/actor_train_time",
    "perf/update_weights_time",
    "perf/save_model_time",
    "perf/log_probs_tflops",
    "perf/ref_log_probs_tflops",
    "perf/actor_train_tflops",
    "perf/actor_train_tok_per_s",
    "perf/step_time",
    "perf/wait_time_ratio",
    "perf/update_weights_density",
    "perf/update_weights_wire_bytes",
    "multi_turn/raw_response_length/response_length_{}",
    "multi_turn/wo_obs_response_length/response_length_{}",
    "multi_turn/multi_turn_metric/round_number_{}",
    "passrate/pass@{}",
  ],
  "eval/step": ["eval/{}", "eval/{}/response_len/*", "eval/{}-truncated_ratio", "eval/{}-pass@{}"],
} as const satisfies Readonly<Record<string, readonly string[]>>;

export type MetricAxis = keyof typeof runMetrics;

/** True when upstream knows a metric of this name on this axis. */
export function isUpstreamMetric(axis: MetricAxis, name: string): boolean {
  return patterns[axis].some((pattern) => pattern.test(name));
}

const statistics = "(mean|median|max|min)";
const compiled = (axis: MetricAxis): readonly RegExp[] =>
  runMetrics[axis].map(
    (name) =>
      new RegExp(
        `^${name
          .replace(/[.+?^$()|[\]\\]/g, "\\$&")
          .replaceAll("{}", "[^/]+")
          .replace("/*", `/${statistics}`)}$`,
      ),
  );
const patterns: Readonly<Record<MetricAxis, readonly RegExp[]>> = {
  "train/step": compiled("train/step"),
  "rollout/step": compiled("rollout/step"),
  "eval/step": compiled("eval/step"),
};
