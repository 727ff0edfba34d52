import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SlimeError } from "@slime/core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeDirectoryAtomic, writeFileAtomic } from "./files.js";
import { readModelConfig, readModelWeights, tensorsOf, writeHfCheckpoint } from "./hf-checkpoint.js";
import { parameterLayout } from "./layout.js";
import { modelConfigJson, parseModelConfig } from "./model-config.js";
import { encodeSafetensors } from "./safetensors.js";
import { tinyConfig } from "./testing/index.js";
import { initialWeights } from "./weights.js";

let root = "";
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "hf-"));
});
afterAll(() => rm(root, { recursive: true, force: true }));

describe("Hugging Face directory", () => {
  it.each([
    ["tied, Qwen3", tinyConfig({ tiedHead: true, eosTokenIds: [1, 2], bosTokenId: 3 })],
    ["untied, without qk-norm", tinyConfig({ qkNorm: false })],
  ])("reads back what it wrote: %s", async (name, config) => {
    const source = await mkdtemp(join(root, "source-"));
    for (const file of ["tokenizer.json", "tokenizer_config.json", "notes.txt"]) await writeFile(join(source, file), `${file} of ${name}`);
    const directory = join(root, name);
    const weights = initialWeights(config, 1);
    await writeHfCheckpoint(directory, config, weights, source);
    expect((await readdir(directory)).sort()).toEqual(["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]);
    expect(await readFile(join(directory, "tokenizer.json"), "utf8")).toBe(`tokenizer.json of ${name}`);
    expect(await readModelConfig(directory)).toEqual(config);
    expect(await readModelWeights(directory, config)).toEqual(weights);
    await expect(writeHfCheckpoint(directory, config, weights, source)).rejects.toSatisfy((error) => SlimeError.is(error, "conflict"));
    expect((await readdir(root)).filter((file) => file.endsWith(".tmp"))).toEqual([]);
  });

  it("reads shards through their index", async () => {
    const config = tinyConfig();
    const weights = initialWeights(config, 2);
    const directory = await mkdtemp(join(root, "shards-"));
    const tensors = tensorsOf(config, weights);
    const shards = [tensors.slice(0, 5), tensors.slice(5)];
    const map: Record<string, string> = {};
    for (const [i, shard] of shards.entries()) {
      for (const { name } of shard) map[name] = `model-${i}.safetensors`;
      await writeFile(join(directory, `model-${i}.safetensors`), encodeSafetensors(shard));
    }
    await writeFile(join(directory, "model.safetensors.index.json"), JSON.stringify({ weight_map: map }));
    expect(await readModelWeights(directory, config)).toEqual(weights);
    await writeFile(join(directory, "model.safetensors.index.json"), JSON.stringify({ weight_map: { a: "../elsewhere.safetensors" } }));
    await expect(readModelWeights(directory, config)).rejects.toThrow(/lies outside/);
  });

  it("names every tensor that is missing, unknown or of another shape", async () => {
    const config = tinyConfig();
    const directory = await mkdtemp(join(root, "wrong-"));
    const [first, second, ...rest] = tensorsOf(config, initialWeights(config, 3));
    if (!first || !second) throw new Error("a model has two tensors");
    await writeFile(
      join(directory, "model.safetensors"),
      encodeSafetensors([{ ...first, shape: [first.data.length] }, { ...second, name: "bias" }, ...rest]),
    );
    await expect(readModelWeights(directory, config)).rejects.toThrow(
      /embed_tokens.weight has shape \[88\], config.json wants \[11, 8\].*input_layernorm.weight is missing.*bias is not part/,
    );
    await expect(readModelWeights(join(root, "none"), config)).rejects.toSatisfy((error) => SlimeError.is(error, "file.missing"));
  });
});

describe("ModelConfig", () => {
  it("refuses a model it cannot hold, all reasons at once", () => {
    const json = {
      ...modelConfigJson(tinyConfig()),
      hidden_size: 12,
      num_key_value_heads: 3,
      hidden_act: "gelu",
      vocab_size: "many",
      rope_scaling: { type: "yarn" },
    };
    const attempt = () => parseModelConfig(json, "config.json");
    for (const part of [
      /hidden_size must be a multiple of 8, found 12/,
      /multiple of num_key_value_heads \(3\)/,
      /"gelu"/,
      /vocab_size must be a positive integer, found "many"/,
      /rope_scaling/,
    ])
      expect(attempt).toThrow(part);
    expect(() => parseModelConfig([], "config.json")).toThrow(/architectures must be one of Qwen3ForCausalLM, LlamaForCausalLM/);
  });

  it("takes Hugging Face's defaults and the nested rope base", () => {
    const {
      head_dim: _,
      rope_theta: __,
      num_key_value_heads: ___,
      ...json
    } = modelConfigJson(tinyConfig({ hiddenSize: 16, heads: 2, headDim: 8 }));
    expect(parseModelConfig({ ...json, rope_parameters: { rope_theta: 500 } }, "c")).toMatchObject({
      headDim: 8,
      kvHeads: 2,
      ropeTheta: 500,
    });
  });
});

describe("parameterLayout", () => {
  it("L1: tensors are adjacent, in order, each at a multiple of 4 floats", () => {
    for (const config of [tinyConfig(), tinyConfig({ tiedHead: true, qkNorm: false, vocabSize: 7 })]) {
      const layout = parameterLayout(config);
      let at = 0;
      for (const tensor of layout.tensors) {
        expect(tensor.offset).toBe(at);
        expect(at % 4).toBe(0);
        at += tensor.count;
      }
      expect(layout.count).toBe(at);
      expect(layout.tensors.some(({ name }) => name === "lm_head.weight")).toBe(!config.tiedHead);
    }
  });
});

describe("atomic files", () => {
  it("leave what was there when the work fails", async () => {
    const directory = await mkdtemp(join(root, "atomic-"));
    await writeFileAtomic(join(directory, "a"), "old");
    await expect(writeFileAtomic(join(directory, "missing", "b"), "new")).rejects.toThrow(/ENOENT/);
    await expect(
      writeDirectoryAtomic(join(directory, "d"), async (scratch) => {
        await writeFile(join(scratch, "half"), "half");
        throw new Error("killed");
      }),
    ).rejects.toThrow("killed");
    expect((await readdir(directory)).sort()).toEqual(["a"]);
    expect(await readFile(join(directory, "a"), "utf8")).toBe("old");
  });
});
