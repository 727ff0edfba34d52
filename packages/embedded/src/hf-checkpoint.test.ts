import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SlimeError } from "@slime/core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeDirectoryAtomic, writeFileAtomic } from "./files.js";
import { readModelConfig, readModelWeights, tensorsOf, writeHfCheckpoint } from "./hf-checkpoint.js";
import { parameterLayout } from "./layout.js";
import { modelConfigJson, parseModelConfig } from "./model-config.js";
import { encodeSafetensors, type NamedTensor } from "./safetensors.js";
import { tinyConfig, tinyLlamaConfig } from "./testing/index.js";
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
    ["tied, Llama 3.1's rotary scaling", tinyLlamaConfig()],
    ["linear rotary scaling", tinyLlamaConfig({ ropeScaling: { kind: "linear", factor: 2 } })],
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

  it("reads half-precision numbers, and what a tied head or an old file says twice", async () => {
    const config = tinyLlamaConfig();
    const directory = await mkdtemp(join(root, "halves-"));
    const tensors = tensorsOf(config, initialWeights(config, 4));
    const [embedding] = tensors;
    if (!embedding) throw new Error("a model has an embedding");
    const twice = [
      { ...embedding, name: "lm_head.weight" },
      { name: "model.layers.0.self_attn.rotary_emb.inv_freq", shape: [1], data: new Float32Array(1) },
    ];
    await writeFile(join(directory, "model.safetensors"), asBf16([...tensors, ...twice]));
    const read = await readModelWeights(directory, config);
    initialWeights(config, 4).forEach((value, i) => expect(read[i]).toBe(bf16(value)));
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

  const llama = {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_size: 576,
    intermediate_size: 1536,
    num_hidden_layers: 30,
    num_attention_heads: 9,
    num_key_value_heads: 3,
    vocab_size: 49_152,
    rms_norm_eps: 1e-5,
  };
  const scaling = { factor: 32, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 8192 };
  const llama3 = { kind: "llama3", factor: 32, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalPositions: 8192 };

  it.each<[string, object, object]>([
    ["a head size that is silent", {}, { headDim: 64, kvHeads: 3, qkNorm: false, ropeTheta: 10_000, ropeScaling: null, normEps: 1e-5 }],
    ["a head size that is null", { head_dim: null }, { headDim: 64 }],
    ["as many key/value heads as heads", { num_key_value_heads: undefined }, { kvHeads: 9 }],
    ["no architectures, but a model type", { architectures: undefined }, { qkNorm: false }],
    ["Qwen3's own head size", { architectures: ["Qwen3ForCausalLM"] }, { headDim: 128, qkNorm: true }],
    ["the base on top", { rope_theta: 100_000 }, { ropeTheta: 100_000 }],
    ["the nested base", { rope_parameters: { rope_type: "default", rope_theta: 500 } }, { ropeTheta: 500, ropeScaling: null }],
    ["Llama 3.1's scaling", { rope_scaling: { rope_type: "llama3", ...scaling } }, { ropeScaling: llama3 }],
    [
      "the same nested",
      { rope_parameters: { rope_type: "llama3", rope_theta: 500_000, ...scaling } },
      { ropeTheta: 500_000, ropeScaling: llama3 },
    ],
    [
      "linear scaling under its older name",
      { rope_scaling: { type: "linear", factor: 4 } },
      { ropeScaling: { kind: "linear", factor: 4 } },
    ],
  ])("reads %s", (_, fields, expected) => {
    expect(parseModelConfig({ ...llama, ...fields }, "config.json")).toMatchObject(expected);
  });

  it.each<[object, RegExp]>([
    [{ attention_bias: true }, /attention_bias must be false/],
    [{ mlp_bias: true }, /mlp_bias must be false/],
    [{ rope_scaling: { rope_type: "dynamic", factor: 2 } }, /rope_scaling of type "dynamic" is not supported/],
    [{ rope_scaling: { rope_type: "llama3", factor: 8 } }, /low_freq_factor of rope_scaling must be a positive number, found undefined/],
    [{ rope_theta: "big" }, /rope_theta must be a positive number, found "big"/],
    [{ quantization_config: { quant_method: "gptq" } }, /quantization_config/],
    [{ architectures: ["MistralForCausalLM"] }, /found \["MistralForCausalLM"\] \(model_type "llama"\)/],
  ])("refuses %j by name", (fields, message) => {
    expect(() => parseModelConfig({ ...llama, ...fields }, "config.json")).toThrow(message);
  });

  it("takes the ids that end an answer from generation_config.json as well", async () => {
    const directory = await mkdtemp(join(root, "ends-"));
    await writeFile(join(directory, "config.json"), JSON.stringify({ ...llama, eos_token_id: 2 }));
    await writeFile(join(directory, "generation_config.json"), JSON.stringify({ eos_token_id: [2, 7] }));
    expect((await readModelConfig(directory)).eosTokenIds).toEqual([2, 7]);
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

/** The value with its lower sixteen bits cut off. */
function bf16(value: number): number {
  const bits = new Uint32Array(Float32Array.of(value).buffer);
  return new Float32Array(Uint32Array.of((bits[0] ?? 0) & 0xffff0000).buffer)[0] ?? Number.NaN;
}

function asBf16(tensors: readonly NamedTensor[]): Uint8Array {
  let at = 0;
  const header: Record<string, unknown> = {};
  const parts = tensors.map(({ name, shape, data }) => {
    header[name] = { dtype: "BF16", shape, data_offsets: [at, at + data.length * 2] };
    at += data.length * 2;
    const bits = new Uint32Array(data.buffer, data.byteOffset, data.length);
    return new Uint8Array(Uint16Array.from(bits, (b) => b >>> 16).buffer);
  });
  const text = Buffer.from(JSON.stringify(header));
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(text.length), true);
  return Buffer.concat([length, text, ...parts]);
}
