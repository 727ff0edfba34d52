/**
 * Flags that upstream slime has and this version does not: named so that who brings a script from there is told so, and not sent
 * looking for a typing error. A flag that gets built moves from here to `flags.ts` (a test refuses both).
 */
export const upstreamOnly: readonly string[] = (
  "allgather-cp async-save balance-by-flops buffer-filter-path check-weight-update-equal ci-test custom-advantage-function-path " +
  "custom-config-path custom-convert-samples-to-train-data-path custom-generate-function-path custom-loss-function-path " +
  "custom-megatron-before-log-prob-hook-path custom-megatron-before-train-step-hook-path custom-megatron-init-path " +
  "custom-model-provider-path custom-pg-loss-reducer-function-path custom-reward-post-process-path custom-rollout-log-function-path " +
  "custom-tis-function-path data-source-path debug-rollout-only debug-train-only disable-compute-advantages-and-returns " +
  "disable-rollout-global-dataset distributed-backend distributed-timeout-minutes dump-details eval-config eval-function-path " +
  "eval-max-context-len eval-max-prompt-len eval-tool-key freeze-params-name-list get-mismatch-metrics http-proxy " +
  "keep-old-actor lambd load-debug-rollout-data log-multi-turn log-passrate log-probs-chunk-size log-probs-max-tokens-per-gpu " +
  "log-reward-category loss-mask-type loss-type mask-offpolicy-in-partial-rollout max-turns megatron-config-path " +
  "model-name multimodal-keys no-save-optim num-critic-only-steps num-data-workers offload offload-rollout offload-train only-train-params-name-list " +
  "opd-kl-coef opd-teacher-load opd-type opsm-delta partial-rollout ref-ckpt-step release-train reset-optimizer-states " +
  "rm-url rollout-all-samples-process-path rollout-buffer-url rollout-data-postprocess-path rollout-data-transport " +
  "rollout-function-path rollout-health-check-first-wait rollout-health-check-interval " +
  "rollout-health-check-timeout rollout-sample-filter-path rollout-sample-hook-path rollout-task-type save-debug-rollout-data " +
  "save-debug-train-data save-hf start-rollout-id streaming-data tb-experiment-name tb-project-name tool-key train-env-vars " +
  "update-weight-buffer-size update-weight-local-checkpoint-dir update-weight-mode " +
  "use-distributed-post use-fault-tolerance use-opd use-opsm use-rollout-entropy use-rollout-routing-replay use-routing-replay " +
  "use-stateless-adam use-tensorboard use-wandb value-clip wandb-always-use-train-step wandb-group wandb-project"
).split(" ");

/** Why a flag that is no row is refused: by family first, then as one of upstream's not built here; null: simply unknown. */
export function whyRefused(name: string): string | null {
  if (upstreamOnly.includes(name)) return "upstream slime has it, this version does not yet";
  if (megatronFlags.includes(name)) return "it is Megatron's, which the embedded backend does not use";
  return null;
}

const megatronFlags: readonly string[] = (
  "tensor-model-parallel-size pipeline-model-parallel-size context-parallel-size expert-model-parallel-size expert-tensor-parallel-size " +
  "sequence-parallel recompute-granularity recompute-method recompute-num-layers recompute-activations ckpt-format optimizer lr-decay-style " +
  "attention-dropout hidden-dropout attention-backend num-layers hidden-size ffn-hidden-size num-attention-heads group-query-attention " +
  "num-query-groups normalization norm-epsilon"
).split(" ");
