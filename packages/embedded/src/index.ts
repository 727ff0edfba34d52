export { Decoder, type PositionGradients, type PositionValues } from "./decoder.js";
export { Arena, type ArenaMark, type KernelExports } from "./kernels.js";
export { type LayerSlots, parameterLayout, type ParameterLayout, type TensorSlot } from "./layout.js";
export { configProblems, type ModelConfig, modelConfigJson, parseModelConfig } from "./model-config.js";
export { type PackedSequences, packSamples } from "./packing.js";
export { initialWeights, type LayerWeights, ropeTables, WeightSet } from "./weights.js";
