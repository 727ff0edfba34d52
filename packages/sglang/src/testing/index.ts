export { doubleHelper } from "./double-helper.js";
export { decodeDouble, doubleVocabulary, encodeDouble } from "./double-model.js";
export type { SglangDoubleOptions } from "./double-server.js";
export { freePort } from "./free-port.js";
export {
  type LethalCase,
  type LethalEffect,
  type LethalStage,
  lethalCases,
  lethalRequest,
  type RawAnswer,
  rawCall,
  transposedCopy,
} from "./lethal-cases.js";
export { type RouterDouble, type RouterDoubleOptions, routerDouble } from "./router-double.js";
export { SglangDouble } from "./sglang-double.js";
export { type TinyExport, tinyShapes, tinyWeights, writeTinyCheckpoint, writeTinyExport } from "./tiny-checkpoint.js";
