export { type AppliedStep, decodeApplied } from "./applied-record.js";
export { checksumHex } from "./checksum.js";
export { memoryCollectives, soloCollective, sumInOrder } from "./collective.js";
export { Decoder } from "./decoder.js";
export {
  defaultEngineLimits,
  EmbeddedEngine,
  type EmbeddedEngineOptions,
  type EngineContext,
  type EngineLimits,
  type EngineModel,
  type EngineTokenizer,
  type RunningEngine,
  readTokenizer,
  startEmbeddedEngine,
  type WeightSource,
} from "./engine/index.js";
export type { PositionGradients, PositionValues } from "./head-pass.js";
export { readModelConfig, readModelWeights, writeHfCheckpoint } from "./hf-checkpoint.js";
export { Arena, type ArenaMark, type KernelExports } from "./kernels.js";
export { type LayerSlots, type ParameterLayout, parameterLayout, type TensorSlot } from "./layout.js";
export { configProblems, type ModelConfig, modelConfigJson, parseModelConfig } from "./model-config.js";
export { type PackedSequences, packSamples } from "./packing.js";
export { type RopeScaling, ropeFrequencies, ropeTables } from "./rope.js";
export { decodeSafetensors, encodeSafetensors, type NamedTensor } from "./safetensors.js";
export { EmbeddedTrainer } from "./trainer.js";
export { initialWeights, type LayerWeights, WeightSet } from "./weights.js";
