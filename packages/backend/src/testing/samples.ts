import type { Sample } from "../sample.js";

/** A sample with distinct numbers everywhere, `cut` tokens of it from version 1 and the rest from version 2. */
export function sampleOf(index: number, shape: { readonly prompt: number; readonly response: number; readonly cut: number }): Sample {
  const cut = Math.min(shape.cut, shape.response);
  return {
    groupIndex: index >> 1,
    index,
    instanceId: `0:${index >> 1}`,
    rolloutId: index,
    prompt: "p",
    promptTokens: Array.from({ length: shape.prompt }, (_, at) => 100 * index + at),
    responseTokens: Array.from({ length: shape.response }, (_, at) => 10_000 + 100 * index + at),
    response: "r",
    responseLogProbs: Array.from({ length: shape.response }, (_, at) => -0.5 - at / 8),
    lossMask: null,
    weightSpans: [
      { version: 1, from: 0, to: cut, mixed: false },
      { version: 2, from: cut, to: shape.response, mixed: false },
    ],
    label: null,
    reward: index / 4,
    status: "completed",
    failure: null,
    removeSample: false,
    metadata: {},
    nonGenerationS: 0,
  };
}
