export type { StoreUsage } from "./capacity.js";
export { scratchDirectory } from "./layout.js";
export { ObjectStore, type ObjectStoreOptions, type StoredBytes, type StoredValue } from "./object-store.js";
