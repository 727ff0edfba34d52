import {
  type Camel,
  choice,
  choiceOrNone,
  type FlagRow,
  integer,
  integerOrNone,
  integerRequired,
  integers,
  json,
  number,
  numberOrNone,
  pairs,
  text,
  textOrNone,
  textRequired,
  texts,
  toggle,
} from "./flag-row.js";

const training = "packages/training";
const rlConfig = "packages/rl-config";
const app = "apps/slime";

/** Every flag of `slime train` and `slime train-async`. Adding one: a row here, a reader, the golden file (README, checklist). */
export const flags = [
  // cluster
  choice("train-backend", ["embedded"], {
    group: "cluster",
    default: "embedded",
    reader: app,
    help: "what trains and generates; embedded: both on the CPU",
  }),
  integer("actor-num-nodes", { group: "cluster", default: 1, min: 1, reader: rlConfig, help: "nodes that train" }),
  integer("actor-num-gpus-per-node", {
    group: "cluster",
    default: 8,
    min: 1,
    reader: rlConfig,
    help: "trainer GPUs (ranks) on each of them; embedded: virtual GPUs",
  }),
  integerOrNone("rollout-num-gpus", {
    group: "cluster",
    min: 1,
    reader: rlConfig,
    help: "GPUs of all engines together; default: one engine's",
  }),
  integer("rollout-num-gpus-per-engine", { group: "cluster", default: 1, min: 1, reader: rlConfig, help: "GPUs of one engine" }),
  integer("num-gpus-per-node", { group: "cluster", default: 8, min: 1, reader: rlConfig, help: "GPUs a node has, for placing engines" }),
  integer("rollout-num-workers", {
    group: "cluster",
    default: 1,
    min: 1,
    max: 256,
    origin: "own",
    reader: app,
    help: "RolloutWorker processes that call the router and score answers",
  }),
  toggle("colocate", { group: "cluster", reader: rlConfig, help: "trainer and engines share GPUs (not built yet: refused)" }),
  choice("router-policy", ["round_robin", "least_in_flight"], {
    group: "cluster",
    default: "round_robin",
    reader: training,
    help: "how the router picks an engine",
  }),
  integer("sglang-server-concurrency", {
    group: "cluster",
    default: 512,
    min: 1,
    max: 65_536,
    reader: training,
    help: "requests in flight per engine",
  }),

  // model
  textRequired("hf-checkpoint", {
    group: "model",
    reader: training,
    help: "Hugging Face directory: config, tokenizer, and weights unless --from-scratch",
  }),
  toggle("from-scratch", { group: "model", origin: "own", reader: training, help: "initial weights come from --seed alone" }),
  textOrNone("ref-load", {
    group: "model",
    reader: training,
    help: "Hugging Face directory of the frozen reference; default where one is needed: the initial weights",
  }),
  integer("ref-num-gpus", {
    group: "model",
    default: 0,
    min: 0,
    max: 1,
    origin: "own",
    reader: training,
    help: "1: the reference is a RefModel on a GPU of its own; 0: it lives in the trainer's ranks",
  }),
  integerOrNone("ref-update-interval", {
    group: "model",
    min: 1,
    reader: training,
    help: "copy the actor into the reference every N rollouts",
  }),
  integer("seed", { group: "model", default: 1234, min: 0, reader: training, help: "seed of initial weights" }),

  // data
  textRequired("prompt-data", { group: "data", reader: training, help: "JSONL of prompts; path@[a:b] takes a slice" }),
  textOrNone("input-key", {
    group: "data",
    reader: training,
    help: "field of the prompt; default: input, or prompt where records have no input",
  }),
  textOrNone("label-key", { group: "data", reader: training, help: "field of the label; default: label where records have it" }),
  text("metadata-key", { group: "data", default: "metadata", reader: training, help: "field of the metadata object" }),
  toggle("apply-chat-template", { group: "data", reader: training, help: "render prompts with the model's chat template" }),
  json("apply-chat-template-kwargs", { group: "data", reader: training, help: "JSON object handed to the chat template" }),
  toggle("rollout-shuffle", { group: "data", reader: training, help: "shuffle prompts anew each epoch" }),
  integer("rollout-seed", {
    group: "data",
    default: 42,
    min: 0,
    reader: training,
    help: "seed of the prompt order and base of sampling seeds",
  }),

  // loop
  integerOrNone("num-rollout", { group: "loop", min: 0, reader: rlConfig, help: "rollouts of the whole run" }),
  integerOrNone("num-epoch", {
    group: "loop",
    min: 1,
    reader: rlConfig,
    help: "passes over the prompts; read when --num-rollout is not given",
  }),
  integerRequired("rollout-batch-size", { group: "loop", min: 1, reader: rlConfig, help: "prompts per rollout" }),
  integer("n-samples-per-prompt", { group: "loop", default: 1, min: 1, reader: rlConfig, help: "answers per prompt (a group)" }),
  integerOrNone("global-batch-size", {
    group: "loop",
    min: 1,
    reader: rlConfig,
    help: "samples per optimizer step; derived from --num-steps-per-rollout",
  }),
  integerOrNone("num-steps-per-rollout", { group: "loop", min: 1, reader: rlConfig, help: "optimizer steps per rollout" }),
  integer("micro-batch-size", {
    group: "loop",
    default: 1,
    min: 1,
    reader: training,
    help: "samples per forward pass; not read with --use-dynamic-batch-size",
  }),
  toggle("use-dynamic-batch-size", { group: "loop", reader: training, help: "pack micro-batches by tokens" }),
  integerOrNone("max-tokens-per-gpu", { group: "loop", min: 1, reader: training, help: "tokens of a packed micro-batch" }),
  toggle("balance-data", { group: "loop", reader: training, help: "spread work evenly over data-parallel ranks" }),

  // sampling
  number("rollout-temperature", {
    group: "sampling",
    default: 1,
    above: 0,
    reader: training,
    help: "sampling temperature; the trainer divides its logits by it too",
  }),
  number("rollout-top-p", { group: "sampling", default: 1, above: 0, max: 1, reader: training, help: "nucleus" }),
  integer("rollout-top-k", { group: "sampling", default: -1, min: -1, reader: training, help: "largest number of candidates; -1: all" }),
  integerRequired("rollout-max-response-len", { group: "sampling", min: 1, reader: training, help: "tokens of an answer at most" }),
  integerOrNone("rollout-max-context-len", { group: "sampling", min: 2, reader: rlConfig, help: "tokens of prompt and answer at most" }),
  integerOrNone("rollout-max-prompt-len", {
    group: "sampling",
    min: 1,
    reader: rlConfig,
    help: "longer prompts are left out; default: context - 1",
  }),
  texts("rollout-stop", { group: "sampling", reader: training, help: "stop strings" }),
  integers("rollout-stop-token-ids", { group: "sampling", reader: training, help: "stop token ids" }),
  toggle("rollout-skip-special-tokens", { group: "sampling", reader: training, help: "leave special tokens out of the text" }),
  toggle("sglang-enable-deterministic-inference", {
    group: "sampling",
    reader: training,
    help: "sample i of a group samples with seed --rollout-seed + i",
  }),
  integerOrNone("over-sampling-batch-size", {
    group: "sampling",
    min: 1,
    reader: rlConfig,
    help: "prompts asked for at once when a filter rejects groups; default: --rollout-batch-size",
  }),
  choiceOrNone("dynamic-sampling-filter-path", ["slime.rollout.filter_hub.dynamic_sampling_filters.check_reward_nonzero_std"], {
    group: "sampling",
    reader: training,
    help: "drop groups of equal rewards and draw others in their place",
  }),

  // eval
  integerOrNone("eval-interval", { group: "eval", min: 1, reader: rlConfig, help: "evaluate after every N-th rollout" }),
  pairs("eval-prompt-data", { group: "eval", reader: rlConfig, help: "NAME PATH of an evaluation set; may be repeated" }),
  toggle("skip-eval-before-train", { group: "eval", reader: training, help: "no evaluation before the first rollout" }),
  integer("n-samples-per-eval-prompt", { group: "eval", default: 1, min: 1, reader: app, help: "answers per evaluation prompt" }),
  numberOrNone("eval-temperature", { group: "eval", min: 0, reader: training, help: "0: greedy; default: --rollout-temperature" }),
  numberOrNone("eval-top-p", { group: "eval", above: 0, max: 1, reader: training, help: "default: --rollout-top-p" }),
  integerOrNone("eval-top-k", { group: "eval", min: -1, reader: training, help: "default: --rollout-top-k" }),
  integerOrNone("eval-max-response-len", { group: "eval", min: 1, reader: training, help: "default: --rollout-max-response-len" }),
  integerOrNone("eval-min-new-tokens", { group: "eval", min: 0, reader: training, help: "tokens before a stop counts" }),
  textOrNone("eval-input-key", { group: "eval", reader: training, help: "default: --input-key" }),
  textOrNone("eval-label-key", { group: "eval", reader: training, help: "default: --label-key" }),

  // algorithm
  choice("advantage-estimator", ["grpo", "gspo", "cispo", "reinforce_plus_plus", "reinforce_plus_plus_baseline"], {
    group: "algorithm",
    default: "grpo",
    reader: training,
    help: "how rewards become advantages",
  }),
  number("eps-clip", { group: "algorithm", default: 0.2, min: 0, reader: training, help: "lower clip of the ratio" }),
  numberOrNone("eps-clip-high", { group: "algorithm", min: 0, reader: training, help: "upper clip; default: --eps-clip" }),
  numberOrNone("eps-clip-c", { group: "algorithm", above: 1, reader: training, help: "dual clip" }),
  number("kl-coef", { group: "algorithm", default: 0, min: 0, reader: training, help: "KL to the reference in the reward" }),
  toggle("use-kl-loss", { group: "algorithm", reader: training, help: "KL to the reference in the loss (coefficient 0: only measured)" }),
  number("kl-loss-coef", { group: "algorithm", default: 0, min: 0, reader: training, help: "weight of the KL loss" }),
  choice("kl-loss-type", ["k1", "k2", "k3", "low_var_kl"], { group: "algorithm", default: "k1", reader: training, help: "KL estimator" }),
  toggle("use-unbiased-kl", { group: "algorithm", reader: training, help: "weigh the KL by the importance ratio" }),
  number("entropy-coef", { group: "algorithm", default: 0, reader: training, help: "entropy bonus" }),
  toggle("calculate-per-token-loss", { group: "algorithm", reader: training, help: "mean over tokens, not over samples" }),
  toggle("normalize-advantages", { group: "algorithm", reader: training, help: "whiten advantages over the batch" }),
  toggle("disable-grpo-std-normalization", { group: "algorithm", reader: training, help: "do not divide by the group's spread" }),
  toggle("disable-rewards-normalization", { group: "algorithm", reader: training, help: "rewards as they are" }),
  toggle("use-rollout-logprobs", { group: "algorithm", reader: training, help: "the engine's log-probs are the old policy's" }),
  toggle("use-tis", { group: "algorithm", reader: training, help: "truncated importance sampling against the engine's log-probs" }),
  number("tis-clip", { group: "algorithm", default: 2, above: 0, reader: training, help: "largest importance weight" }),
  number("tis-clip-low", { group: "algorithm", default: 0, min: 0, reader: training, help: "smallest importance weight" }),
  number("gamma", { group: "algorithm", default: 1, min: 0, max: 1, reader: training, help: "discount (reinforce_plus_plus)" }),

  // optimizer
  number("lr", { group: "optimizer", default: 1e-6, above: 0, reader: training, help: "learning rate" }),
  integer("lr-warmup-iters", { group: "optimizer", default: 0, min: 0, reader: training, help: "optimizer steps of linear warm-up" }),
  number("weight-decay", { group: "optimizer", default: 0.01, min: 0, reader: training, help: "decoupled weight decay" }),
  number("adam-beta1", { group: "optimizer", default: 0.9, min: 0, max: 1, reader: training, help: "decay of the first moment" }),
  number("adam-beta2", { group: "optimizer", default: 0.999, min: 0, max: 1, reader: training, help: "decay of the second moment" }),
  number("adam-eps", { group: "optimizer", default: 1e-8, above: 0, reader: training, help: "added to the root" }),
  number("clip-grad", { group: "optimizer", default: 1, min: 0, reader: training, help: "largest gradient norm; 0: no clipping" }),

  // reward
  textOrNone("rm-type", {
    group: "reward",
    reader: training,
    help: "built-in reward: exact, math, …; boxed_ before it takes the last \\boxed{}",
  }),
  textOrNone("custom-rm-path", { group: "reward", reader: training, help: ".ts, .js or .py file that scores an answer" }),
  toggle("group-rm", { group: "reward", reader: training, help: "the reward function scores a whole group at once" }),
  textOrNone("reward-key", { group: "reward", reader: training, help: "which of named rewards trains" }),
  textOrNone("eval-reward-key", { group: "reward", reader: training, help: "default: --reward-key" }),
  number("rm-timeout", {
    group: "reward",
    default: 30,
    above: 0,
    origin: "own",
    reader: training,
    help: "seconds for one reward; past it the reward's worker is killed and the prompt failed",
  }),
  number("failed-prompts-max", {
    group: "reward",
    default: 0.01,
    min: 0,
    max: 1,
    origin: "own",
    reader: training,
    help: "share of failed prompts past which the run stops (8 are always allowed)",
  }),

  // checkpoint
  textOrNone("save", { group: "checkpoint", reader: training, help: "directory of checkpoints; default: <run-dir>/checkpoints" }),
  integerOrNone("save-interval", {
    group: "checkpoint",
    min: 1,
    reader: training,
    help: "checkpoint after every N-th rollout; the last is always saved",
  }),
  textOrNone("load", { group: "checkpoint", reader: training, help: "resume from the newest checkpoint below this directory" }),
  integer("save-keep", { group: "checkpoint", default: 3, min: 1, origin: "own", reader: training, help: "checkpoints kept" }),

  // async
  integer("async-buffer-size", {
    group: "async",
    default: 1,
    min: 1,
    max: 64,
    reader: training,
    help: "finished rollouts that may wait for the trainer (train-async)",
  }),
  integer("update-weights-interval", {
    group: "async",
    default: 1,
    min: 1,
    reader: training,
    help: "push weights after every N-th rollout trained (train-async)",
  }),
  integerOrNone("max-staleness", {
    group: "async",
    min: 0,
    origin: "own",
    reader: training,
    help: "largest weight-version lag of a trained sample; not given: measured only",
  }),
  choice("staleness-policy", ["drop", "wait", "refill", "mask"], {
    group: "async",
    default: "drop",
    origin: "own",
    reader: training,
    help: "what happens past --max-staleness",
  }),
  choiceOrNone("update-weights-pause-mode", ["abort", "retract", "in_place"], {
    group: "async",
    origin: "own",
    reader: training,
    help: "what a push does to requests in flight; default: abort (train), retract (train-async)",
  }),

  // run
  textOrNone("run-dir", { group: "run", origin: "own", reader: app, help: "run directory; default: outputs/<run id>" }),
  number("stall-timeout", {
    group: "run",
    default: 600,
    above: 0,
    origin: "own",
    reader: training,
    help: "seconds without any progress after which the run stops and says what it waited for",
  }),
  toggle("no-save-samples", { group: "run", origin: "own", reader: training, help: "do not keep prompts and answers for `slime samples`" }),
] as const;

type Rows = (typeof flags)[number];
type ValueOf<R> = R extends FlagRow<string, infer Value> ? Value : never;

export type FlagName = Rows["name"];
/** The resolved values of all flags, by key. */
export type FlagValues = { readonly [R in Rows as Camel<R["name"]>]: ValueOf<R> };

/** `sync` is `slime train`, `async` is `slime train-async`. */
export type RunMode = "sync" | "async";

/** One run's configuration: resolved once, frozen, handed down whole. */
export type RunConfig = FlagValues & { readonly mode: RunMode };
