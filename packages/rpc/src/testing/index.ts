export { memoryPair, type MemoryPair } from "./memory-wire.js";
export { peerPair, testHello } from "./peer-pair.js";
