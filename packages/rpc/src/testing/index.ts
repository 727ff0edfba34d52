export { type MemoryPair, memoryPair } from "./memory-wire.js";
export { peerPair, testHello } from "./peer-pair.js";
