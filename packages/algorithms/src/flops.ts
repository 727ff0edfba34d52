/** Forward FLOPs of a decoder, to weigh samples against each other and to report TFLOP/s. Counts a multiply-add as 2. */

/** Multi-head latent attention (DeepSeek): ranks and head dimensions of its projections. */
export interface LatentAttention {
  readonly qLoraRank: number;
  readonly kvLoraRank: number;
  readonly qkHeadDim: number;
  readonly qkPosEmbHeadDim: number;
  readonly vHeadDim: number;
}

/** Expert layers and how they alternate with dense ones. */
export interface MixtureOfExperts {
  readonly ffnHiddenSize: number;
  readonly topK: number;
  /** Width of the expert every token passes; 0: none. */
  readonly sharedFfnHiddenSize: number;
  /** A list says per layer 0 dense, 1 MoE; a number n makes each layer i with i % n = 0 an MoE layer. */
  readonly layerFreq: number | readonly number[];
}

/** The sizes of a decoder that its FLOPs depend on. */
export interface ModelShape {
  readonly hiddenSize: number;
  readonly heads: number;
  readonly queryGroups: number;
  /** Head dimension of keys and values. */
  readonly kvChannels: number;
  readonly ffnHiddenSize: number;
  readonly layers: number;
  readonly vocabularySize: number;
  readonly latentAttention?: LatentAttention | undefined;
  readonly experts?: MixtureOfExperts | undefined;
}

/** Forward FLOPs of sequences of these lengths, each attending causally to itself. */
export function forwardFlops(lengths: readonly number[], shape: ModelShape): number {
  const moe = moeLayers(shape);
  const moeFfn = shape.experts === undefined ? 0 : shape.experts.ffnHiddenSize * shape.experts.topK + shape.experts.sharedFfnHiddenSize;
  let total = 0;
  for (const s of lengths) {
    total += (shape.layers - moe) * layerFlops(s, shape, shape.ffnHiddenSize) + moe * layerFlops(s, shape, moeFfn);
    total += 2 * s * shape.hiddenSize * shape.vocabularySize;
  }
  return total;
}

function moeLayers({ experts, layers }: ModelShape): number {
  if (experts === undefined) return 0;
  const { layerFreq } = experts;
  return typeof layerFreq === "number" ? Math.ceil(layers / layerFreq) : layerFreq.filter((f) => f > 0).length;
}

function layerFlops(s: number, shape: ModelShape, ffn: number): number {
  const h = shape.hiddenSize;
  return projectionFlops(s, shape) + attentionFlops(s, shape) + 2 * s * h * h + 6 * s * h * ffn;
}

function projectionFlops(s: number, shape: ModelShape): number {
  const { hiddenSize: h, heads, latentAttention: mla } = shape;
  if (mla === undefined) return 2 * s * h * heads * shape.kvChannels + 4 * s * h * shape.queryGroups * shape.kvChannels;
  const q = mla.qLoraRank * (h + heads * (mla.qkHeadDim + mla.qkPosEmbHeadDim));
  const kv = mla.kvLoraRank * (h + heads * (mla.qkHeadDim + mla.vHeadDim)) + h * mla.qkPosEmbHeadDim;
  return 2 * s * (q + kv);
}

/** Scores see half of the square (causal); the product with the values is counted in full, as upstream does. */
function attentionFlops(s: number, { heads, kvChannels, latentAttention: mla }: ModelShape): number {
  return heads * s * s * (mla === undefined ? 2 * kvChannels : mla.qkHeadDim + mla.qkPosEmbHeadDim + mla.vHeadDim);
}
