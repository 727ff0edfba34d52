/** Flags that say how a run learns and what it leaves: algorithm, optimizer, rewards, checkpoints, asynchrony, the run itself. */
import { choice, choiceOrNone, integer, integerOrNone, number, numberOrNone, textOrNone, toggle } from "./flag-row.js";

const training = "packages/training";
const app = "apps/slime";

/** Rows in the order in which `--help` lists them. */
export const learningFlags = [
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
  choiceOrNone("rm-type", ["exact_match", "boxed_exact_match"], {
    group: "reward",
    reader: training,
    help: "built-in reward; boxed_: of the content of the last \\boxed{} (your own goes into --custom-rm-path)",
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
