export { openHead, type Ask, type ClientInlet, type Head, type HeadDependencies, type NodeInlet, type Outlet } from "./head.js";
export { controlProtocol, headLimits } from "./limits.js";
export { lmdbStore, type LmdbStoreOptions } from "./store/lmdb-store.js";
export { memoryDisk, memoryStore, type MemoryDisk } from "./store/memory-store.js";
export type { StateStore } from "./store/store.js";
