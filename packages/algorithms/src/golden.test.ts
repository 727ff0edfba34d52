import { readFileSync } from "node:fs";
import { SlimeError } from "@slime/core";
import { describe, expect, it } from "vitest";
import * as algorithms from "./index.js";

/** Every field that some function of the file takes; a case carries those of its own function. */
interface Input {
  readonly count: number;
  readonly k: number;
  readonly weights: number[];
  readonly equal_size: boolean;
  readonly lengths: number[];
  readonly tokens_max: number;
  readonly bins: number[][];
  readonly shape: Shape;
  readonly rollout_ids: number[];
  readonly global_batch_size: number;
  readonly dp_size: number;
  readonly cp_size: number;
  readonly vpp_size: number;
  readonly microbatch_group_size: number;
  readonly packing:
    | { readonly kind: "static"; readonly micro_batch_size: number }
    | { readonly kind: "dynamic"; readonly tokens_per_gpu_max: number; readonly balance_by_flops: boolean };
  readonly balance_data: boolean;
  readonly rewards: number[];
  readonly group_indices: number[];
  readonly divide_by_spread: boolean;
  readonly group_size: number;
  readonly values: number[];
  readonly old_values: number[];
  readonly returns: number[];
  readonly value_clip: number;
  readonly masks: number[][];
  readonly mask: number[];
  readonly kind: never;
  readonly mode: never;
  readonly estimator: algorithms.AdvantageEstimator;
  readonly log_probs: number[];
  readonly old_log_probs: number[];
  readonly base_log_probs: number[];
  readonly advantages: number[];
  readonly eps_clip: number;
  readonly eps_clip_high: number;
  readonly eps_clip_c?: number;
  readonly opsm_delta?: number;
  readonly gamma: number;
  readonly lambd: number;
  readonly kl: number[];
  readonly kl_coef: number;
  readonly shift_mean: boolean;
  readonly train_log_probs: number[];
  readonly rollout_log_probs: number[];
  readonly clip: number;
  readonly clip_low: number;
  readonly student_log_probs: number[];
  readonly teacher_log_probs: number[];
  readonly coef: number;
  readonly rollout_mask_sums?: number[];
  readonly rollouts: number;
  readonly x: number[];
  readonly logits: number[][];
  readonly targets: number[];
  readonly temperature: number;
  readonly keep?: number[][];
}

interface Shape {
  readonly hidden_size: number;
  readonly heads: number;
  readonly query_groups: number;
  readonly kv_channels: number;
  readonly ffn_hidden_size: number;
  readonly layers: number;
  readonly vocabulary_size: number;
  readonly latent_attention?: {
    readonly q_lora_rank: number;
    readonly kv_lora_rank: number;
    readonly qk_head_dim: number;
    readonly qk_pos_emb_head_dim: number;
    readonly v_head_dim: number;
  };
  readonly experts?: {
    readonly ffn_hidden_size: number;
    readonly top_k: number;
    readonly shared_ffn_hidden_size: number;
    readonly layer_freq: number | number[];
  };
}

interface Case {
  readonly name: string;
  readonly function: string;
  readonly input: Input;
  readonly expected: unknown;
  readonly tolerance: number;
}

const golden = JSON.parse(readFileSync(new URL("../../../test/golden/algorithms.json", import.meta.url), "utf8")) as {
  version: number;
  cases: Case[];
};

/** The file's function names → this package. Each returns plain JSON. */
const adapters: Record<string, (i: Input) => unknown> = {
  balanced_partitions: (i) => algorithms.balancedPartitions(i.weights, i.k, { equalSize: i.equal_size }),
  first_fit: (i) => algorithms.firstFit(i.lengths, i.tokens_max),
  split_bins: (i) => algorithms.splitBins(i.bins, i.count, i.lengths),
  forward_flops: (i) => algorithms.forwardFlops(i.lengths, shapeOf(i.shape)),
  dp_schedule(i) {
    const packing: algorithms.Packing =
      i.packing.kind === "static"
        ? { kind: "static", microBatchSize: i.packing.micro_batch_size }
        : { kind: "dynamic", tokensPerGpuMax: i.packing.tokens_per_gpu_max, balanceByFlops: i.packing.balance_by_flops };
    const schedule = algorithms.scheduleSteps(
      i.lengths.map((tokens, k) => ({ tokens, rolloutId: i.rollout_ids[k] ?? -1 })),
      {
        globalBatchSize: i.global_batch_size,
        dataParallelSize: i.dp_size,
        contextParallelSize: i.cp_size,
        virtualPipelineSize: i.vpp_size,
        microBatchGroupSize: i.microbatch_group_size,
        packing,
        balanceData: i.balance_data,
        sampleFlops: (tokens) => algorithms.forwardFlops([tokens], shapeOf(i.shape)),
      },
    );
    const layout = algorithms.perRankLayout(schedule, i.dp_size);
    return {
      partitions: layout.partitions,
      micro_batch_indices: layout.microBatchIndices,
      num_microbatches: layout.numMicrobatches,
      global_batch_sizes: layout.globalBatchSizes,
    };
  },
  group_normalise: (i) => algorithms.groupNormalise(i.rewards, i.group_indices, { divideBySpread: i.divide_by_spread }),
  pass_rates: (i) => algorithms.passRates(i.rewards, i.group_size),
  summarise: (i) => algorithms.summarise(i.values),
  rollout_mask_sums: (i) =>
    algorithms.rolloutMaskSums(
      i.rollout_ids,
      algorithms.maskSums(
        i.masks.flat(),
        i.masks.map((m) => m.length),
      ),
    ),
  kl: (i) => algorithms.klTokens(i.kind, i.log_probs, i.base_log_probs, i.old_log_probs).kl_T,
  policy_loss(i) {
    const result = algorithms.policyLoss(
      { logProbs_T: i.log_probs, oldLogProbs_T: i.old_log_probs, advantages_T: i.advantages, mask_T: i.mask, lengths_D: i.lengths },
      { kind: i.kind, epsClip: i.eps_clip, epsClipHigh: i.eps_clip_high, epsClipC: i.eps_clip_c, opsmDelta: i.opsm_delta },
      i.mask,
    );
    return { loss: result.loss_T, clipped: result.clipped_T, ppo_kl: result.ppoKl_T, opsm_masked: result.opsmMasked_T };
  },
  gae(i) {
    const { advantages_T, returns_T } = algorithms.generalisedAdvantages(i.rewards, i.values, i.gamma, i.lambd);
    const input = { rewards_D: [i.rewards.at(-1) ?? 0], lengths_D: [i.values.length], mask_T: i.values.map(() => 1), values_T: i.values };
    expect(algorithms.tokenAdvantages(input, { estimator: "ppo", klCoef: 0, gamma: i.gamma, lambd: i.lambd }).advantages_T).toEqual(
      advantages_T,
    );
    return { advantages: advantages_T, returns: returns_T };
  },
  discounted_returns: (i) => algorithms.discountedReturns(i.rewards, i.gamma),
  token_advantages: (i) =>
    algorithms.tokenAdvantages(
      { rewards_D: i.rewards, lengths_D: i.lengths, mask_T: i.mask, kl_T: i.kl },
      { estimator: i.estimator, klCoef: i.kl_coef, gamma: i.gamma, lambd: i.lambd },
    ).advantages_T,
  whiten: (i) => algorithms.whiten(i.values, algorithms.maskedMoments(i.values, i.mask), { shiftMean: i.shift_mean, step: 0 }),
  tis(i) {
    const { factors_T, raw_T, abs_T } = algorithms.tisWeights(i.train_log_probs, i.rollout_log_probs, {
      tisClip: i.clip,
      tisClipLow: i.clip_low,
      mode: i.mode,
    });
    return { factors: factors_T, raw: raw_T, abs: abs_T };
  },
  distill_advantages: (i) => algorithms.distillAdvantages(i.advantages, i.student_log_probs, i.teacher_log_probs, i.coef),
  value_loss(i) {
    const { loss_T, clipped_T } = algorithms.valueLoss(
      i.values,
      i.old_values,
      i.returns,
      i.value_clip,
      i.values.map(() => 1),
    );
    return { loss: loss_T, clipped: clipped_T };
  },
  reduce(i) {
    const input = { mask_T: i.mask, lengths_D: i.lengths, rolloutMaskSums_D: i.rollout_mask_sums };
    const weights: Record<string, () => Float64Array> = {
      rollout_mean: () => algorithms.rolloutMeanWeights(input, 1 / i.rollouts),
      token_sum: () => algorithms.tokenMeanWeights(i.mask),
      token_mean: () => algorithms.tokenMeanWeights(i.mask, 1 / algorithms.tokenNormaliser(algorithms.maskSums(i.mask, i.lengths))),
    };
    return algorithms.reduceTokens(weights[i.mode]?.() ?? [], i.x);
  },
  token_log_probs(i) {
    const input = {
      logits: i.logits.flat(),
      vocabulary: i.logits[0]?.length ?? 0,
      targets_T: i.targets,
      temperature: i.temperature,
      keep_T: i.keep?.map((ids) => new Set(ids)),
    };
    const { logProbs_T, entropy_T } = algorithms.tokenLogProbs(input);
    return { log_probs: logProbs_T, entropy: entropy_T };
  },
};

function shapeOf(s: Shape): algorithms.ModelShape {
  const mla = s.latent_attention;
  const moe = s.experts;
  return {
    hiddenSize: s.hidden_size,
    heads: s.heads,
    queryGroups: s.query_groups,
    kvChannels: s.kv_channels,
    ffnHiddenSize: s.ffn_hidden_size,
    layers: s.layers,
    vocabularySize: s.vocabulary_size,
    latentAttention: mla && {
      qLoraRank: mla.q_lora_rank,
      kvLoraRank: mla.kv_lora_rank,
      qkHeadDim: mla.qk_head_dim,
      qkPosEmbHeadDim: mla.qk_pos_emb_head_dim,
      vHeadDim: mla.v_head_dim,
    },
    experts: moe && {
      ffnHiddenSize: moe.ffn_hidden_size,
      topK: moe.top_k,
      sharedFfnHiddenSize: moe.shared_ffn_hidden_size,
      layerFreq: moe.layer_freq,
    },
  };
}

function expectClose(got: unknown, wanted: unknown, tolerance: number, where: string): void {
  if (typeof wanted === "number") {
    expect(typeof got, where).toBe("number");
    expect(Math.abs((got as number) - wanted), `${where}: got ${String(got)}, expected ${wanted}`).toBeLessThanOrEqual(
      tolerance * Math.max(1, Math.abs(wanted)),
    );
  } else if (Array.isArray(wanted)) {
    expect((got as ArrayLike<unknown>).length, where).toBe(wanted.length);
    for (const [i, value] of wanted.entries()) expectClose((got as ArrayLike<unknown>)[i], value, tolerance, `${where}[${i}]`);
  } else {
    for (const [key, value] of Object.entries(wanted as object))
      expectClose((got as Record<string, unknown>)[key], value, tolerance, `${where}.${key}`);
  }
}

/** Cases of Python's `random` are run where it lives, in the data package. */
const cases = golden.cases.filter((c) => !c.function.startsWith("python_"));

describe("test/golden/algorithms.json", () => {
  it.each(cases.map((c) => [`${c.function}: ${c.name}`, c] as const))("%s", (_, { function: name, input, expected, tolerance }) => {
    const run = adapters[name];
    if (run === undefined) throw new Error(`no adapter for ${name}`);
    const error = typeof expected === "object" && expected !== null && "error" in expected ? String(expected.error) : null;
    if (error === null) return expectClose(run(input), expected, tolerance, name);
    expect(() => run(input)).toThrow(error);
    expect(() => run(input)).toThrow(SlimeError);
  });

  it("exercises every adapter", () => {
    expect([...new Set(cases.map((c) => c.function))].sort()).toEqual(Object.keys(adapters).sort());
  });
});
