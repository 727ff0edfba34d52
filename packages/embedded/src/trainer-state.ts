import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import type { OptimizerConfig } from "@slime/backend";
import { SlimeError } from "@slime/core";
import { type AppliedStep, decodeApplied, encodeApplied } from "./applied-record.js";
import { Decoder } from "./decoder.js";
import { readJson, readWanted, writeFileAtomic } from "./files.js";
import { readModelWeights, tensorsOf, writeHfCheckpoint } from "./hf-checkpoint.js";
import { Arena } from "./kernels.js";
import { summedMetrics } from "./micro-batch-loss.js";
import type { ModelConfig } from "./model-config.js";
import { type NamedTensor, safetensorsParts } from "./safetensors.js";
import { SafetensorsFile } from "./safetensors-file.js";
import { WeightSet } from "./weights.js";

/** Version of the files a trainer writes beside the model. */
const stateVersion = 1;

/** Everything that training changes, in one arena: weights, gradients, moments, step, and the record of what was applied. */
export class TrainerState {
  readonly arena: Arena;
  readonly decoder: Decoder;
  readonly actor: WeightSet;
  /** Byte addresses of `count` floats each; the gradients are followed by one slot per summed metric, so that one reduction carries both. */
  readonly grads: number;
  readonly m: number;
  readonly v: number;
  step = 0;
  applied: AppliedStep[] = [];
  #ref: WeightSet | null = null;
  /** The reference no longer is what was loaded: a checkpoint must hold it. */
  #refMoved = false;

  constructor(config: ModelConfig) {
    this.arena = new Arena();
    this.decoder = new Decoder(this.arena, config);
    this.actor = new WeightSet(this.arena, config);
    this.grads = this.arena.alloc(this.count + summedMetrics.length);
    this.m = this.arena.alloc(this.count);
    this.v = this.arena.alloc(this.count);
    this.arena.kernels.fillZero(this.m, this.count);
    this.arena.kernels.fillZero(this.v, this.count);
  }

  get config(): ModelConfig {
    return this.actor.config;
  }

  get count(): number {
    return this.actor.layout.count;
  }

  get ref(): WeightSet | null {
    return this.#ref;
  }

  setRef(values: Float32Array): void {
    this.#ref ??= new WeightSet(this.arena, this.config, this.actor.layout);
    this.#ref.set(values);
  }

  moveRef(): void {
    this.setRef(this.actor.view().slice());
    this.#refMoved = true;
  }

  clearGradients(): void {
    this.arena.kernels.fillZero(this.grads, this.count + summedMetrics.length);
  }

  /** One Adam step on what `grads` holds, scaled by `gradScale`. Norm weights are not decayed. */
  applyAdam(optimizer: OptimizerConfig, lr: number, gradScale: number): void {
    this.step += 1;
    const correction1 = 1 / (1 - optimizer.adamBeta1 ** this.step);
    const correction2 = 1 / (1 - optimizer.adamBeta2 ** this.step);
    const { adamBeta1, adamBeta2, adamEps, weightDecay } = optimizer;
    for (const { offset, count, norm } of this.actor.layout.tensors) {
      const at = offset * 4;
      this.arena.kernels.adam(
        this.actor.base + at,
        this.grads + at,
        this.m + at,
        this.v + at,
        count,
        gradScale,
        lr,
        adamBeta1,
        adamBeta2,
        adamEps,
        norm ? 0 : weightDecay,
        correction1,
        correction2,
      );
    }
    this.actor.refresh();
  }

  /** Writes rank `rank`'s files into an existing directory; rank 0 writes what all ranks share. Names are relative to the directory. */
  async save(
    directory: string,
    options: { readonly rank: number; readonly size: number; readonly rolloutId: number; readonly companionsFrom: string | null },
  ): Promise<string[]> {
    const { rank, size, rolloutId, companionsFrom } = options;
    const files = [appliedName(rank)];
    await mkdir(directory, { recursive: true });
    await writeFileAtomic(join(directory, appliedName(rank)), encodeApplied(this.applied));
    if (rank !== 0) return files;
    await writeHfCheckpoint(join(directory, "model"), this.config, this.actor.view(), companionsFrom);
    const moment = (at: number, suffix: string): NamedTensor[] =>
      tensorsOf(this.config, this.arena.f32(at, this.count)).map((tensor) => ({ ...tensor, name: `${tensor.name}.${suffix}` }));
    await writeFileAtomic(
      join(directory, "optimizer.safetensors"),
      safetensorsParts([...moment(this.m, "exp_avg"), ...moment(this.v, "exp_avg_sq")]),
    );
    files.push("model", "optimizer.safetensors");
    if (this.#ref !== null && this.#refMoved) {
      await writeFileAtomic(join(directory, "reference.safetensors"), safetensorsParts(tensorsOf(this.config, this.#ref.view())));
      files.push("reference.safetensors");
    }
    await writeFileAtomic(
      join(directory, "trainer.json"),
      `${JSON.stringify({ version: stateVersion, step: this.step, rolloutId, ranks: size })}\n`,
    );
    return [...files, "trainer.json"];
  }

  /** Takes over what `save` wrote. With fewer ranks than wrote it, a rank also keeps the records of the ranks that are gone. */
  async load(directory: string, options: { readonly rank: number; readonly size: number }): Promise<void> {
    const path = join(directory, "trainer.json");
    const { version, step } = (await readJson(path, "the trainer's step")) as { readonly version?: unknown; readonly step?: unknown };
    if (version !== stateVersion || typeof step !== "number") {
      const reason = `version ${JSON.stringify(version)} is not ${stateVersion}, the one this program reads`;
      throw new SlimeError("checkpoint.invalid", `${path}: ${reason}`, { path, reason });
    }
    const weights = await readModelWeights(join(directory, "model"), this.config);
    const optimizerPath = join(directory, "optimizer.safetensors");
    await using moments = await SafetensorsFile.open(optimizerPath, "the optimizer's moments");
    const m = await this.#gather(moments, "exp_avg");
    const v = await this.#gather(moments, "exp_avg_sq");
    const applied: AppliedStep[] = [];
    const names = await readdir(directory);
    for (const name of names.filter((n) => /^applied-\d{5}\.jsonl$/.test(n)).sort()) {
      if (Number(name.slice(8, 13)) % options.size !== options.rank) continue;
      applied.push(...decodeApplied(await readFileText(join(directory, name)), join(directory, name)));
    }
    if (names.includes("reference.safetensors")) {
      const refPath = join(directory, "reference.safetensors");
      await using reference = await SafetensorsFile.open(refPath, "the reference's weights");
      this.setRef(await this.#gather(reference, null));
      this.#refMoved = true;
    }
    this.actor.set(weights);
    this.arena.f32(this.m, this.count).set(m);
    this.arena.f32(this.v, this.count).set(v);
    this.step = step;
    this.applied = applied.sort((a, b) => a.step - b.step);
  }

  async #gather(file: SafetensorsFile, suffix: string | null): Promise<Float32Array> {
    const out = new Float32Array(this.count);
    for (const slot of this.actor.layout.tensors) {
      const name = suffix === null ? slot.name : `${slot.name}.${suffix}`;
      const entry = file.tensors.get(name);
      if (entry === undefined || entry.count !== slot.count) {
        const reason = entry === undefined ? `${name} is missing` : `${name} has ${entry.count} values, the model ${slot.count}`;
        throw new SlimeError("checkpoint.invalid", `${file.path}: ${reason}`, { path: file.path, reason });
      }
      await file.read(entry, out.subarray(slot.offset, slot.offset + slot.count));
    }
    return out;
  }
}

function appliedName(rank: number): string {
  return `applied-${String(rank).padStart(5, "0")}.jsonl`;
}

async function readFileText(path: string): Promise<string> {
  return (await readWanted(path, "a rank's record of applied instances")).toString("utf8");
}
