// What the wasm module exports. All pointers are byte addresses in the imported memory, 16-byte aligned unless said otherwise; all numbers are f32 or i32.
export { gemm, transpose } from "./gemm";
export { rmsNorm, rmsNormBackward } from "./norm";
export { rope } from "./rope";
export { swiglu, swigluBackward } from "./activation";
export { gatherRows, scatterAddRows } from "./embedding";
export { attention, attentionBackward, attendCached, storeRows } from "./attention";
export { logProbs, logProbsBackward, softmaxRows } from "./softmax";
export { adam, sumSquares, addInto, fillZero, copy } from "./optimizer";
export { fnv1a64 } from "./checksum";
