import { Arena, checksumHex, type EngineTokenizer, type ModelConfig } from "@slime/embedded";
import { tinyConfig } from "@slime/embedded/testing";

/** Small enough for hundreds of tokens in a test, long enough in context for requests that outlast a push. Ids 0 to 25 are letters; 0 ends. */
export const letterModel: ModelConfig = tinyConfig({
  vocabSize: 26,
  hiddenSize: 16,
  intermediateSize: 24,
  heads: 4,
  kvHeads: 2,
  positionsMax: 512,
});

export const letterTokenizer: EngineTokenizer = {
  encode: (text) => Array.from(text, (letter) => letter.charCodeAt(0) - 65),
  decode: (ids) => ids.map((id) => String.fromCharCode(65 + id)).join(""),
};

/** The checksum that a push of these weights announces. */
export function checksumOf(weights: Float32Array): string {
  const arena = new Arena(weights.byteLength);
  const at = arena.alloc(weights.length);
  arena.f32(at, weights.length).set(weights);
  return checksumHex(arena, at, weights.byteLength);
}
