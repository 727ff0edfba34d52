export { EmbeddedEngine, type WeightSource } from "./engine.js";
export { defaultEngineLimits, type EngineContext, type EngineLimits } from "./options.js";
export { type EmbeddedEngineOptions, type EngineModel, type RunningEngine, startEmbeddedEngine } from "./start.js";
export { type EngineTokenizer, readTokenizer } from "./tokenizer.js";
