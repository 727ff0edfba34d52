export { doubleHelper } from "./double-helper.js";
export { decodeDouble, doubleVocabulary, encodeDouble } from "./double-model.js";
export { SglangDouble, type SglangDoubleOptions } from "./sglang-double.js";
export { type TinyExport, tinyShapes, tinyWeights, writeTinyCheckpoint, writeTinyExport } from "./tiny-checkpoint.js";
