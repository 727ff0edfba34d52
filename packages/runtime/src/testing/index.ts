export { memoryCluster, type MemoryCluster, type MemoryClusterOptions } from "./memory-cluster.js";
export { attachTo } from "./attach.js";
