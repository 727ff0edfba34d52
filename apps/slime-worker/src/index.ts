export { JoinOptions, nodesDirOf, parseLabels, parseMemory, parseResources, type ResolvedJoin, resolveJoin } from "./join-options.js";
