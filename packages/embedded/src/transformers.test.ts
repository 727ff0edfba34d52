import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { Decoder } from "./decoder.js";
import { Arena } from "./kernels.js";
import { parseModelConfig } from "./model-config.js";
import { roughWeights } from "./testing/index.js";
import { WeightSet } from "./weights.js";

/** Written by Hugging Face transformers in double precision, from checkpoints of ours with these configs and the seed's weights. */
const golden = JSON.parse(readFileSync(new URL("../../../test/golden/tiny-models.json", import.meta.url), "utf8")) as readonly {
  readonly name: string;
  readonly class: string;
  readonly seed: number;
  readonly config: Readonly<Record<string, unknown>>;
  readonly tokens: readonly number[];
  readonly logProbs: readonly number[];
}[];

describe.each(golden.map((model) => [model.name, model] as const))("%s", (_, model) => {
  it("has the log-probs of Hugging Face transformers", () => {
    const config = parseModelConfig(model.config, "config.json");
    const arena = new Arena();
    const decoder = new Decoder(arena, config);
    const weights = new WeightSet(arena, config);
    weights.set(roughWeights(config, model.seed));
    const packed = {
      tokens_L: Int32Array.from(model.tokens),
      bounds: Int32Array.of(0, model.tokens.length),
      rows: Int32Array.from(model.logProbs, (_, i) => i),
      targets: Int32Array.from(model.tokens.slice(1)),
    };
    const { logProbs_T } = decoder.logProbs(weights, packed, 1);
    model.logProbs.forEach((logProb, t) => expect(Math.abs((logProbs_T[t] ?? Number.NaN) - logProb), `token ${t + 1}`).toBeLessThan(2e-5));
  });
});
