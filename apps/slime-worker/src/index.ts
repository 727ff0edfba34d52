export { JoinOptions, nodesDirOf, parseLabels, parseMemory, parseResources, resolveJoin, type ResolvedJoin } from "./join-options.js";
