export { attachTo } from "./attach.js";
export { type MemoryCluster, type MemoryClusterOptions, memoryCluster } from "./memory-cluster.js";
