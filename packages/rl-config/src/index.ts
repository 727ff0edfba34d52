export { type Derived, derive, type LoopLength, largestLag, loopLength } from "./derived.js";
export {
  answeringEngines,
  type EngineGroup,
  type EngineModel,
  engineGpus,
  engineModels,
  type WorkerType,
  workerTypes,
} from "./engine-groups.js";
export { type Camel, envOf, type FlagGroup, type FlagRow, type FlagShape, flagGroups, keyOf, type NamedPath } from "./flag-row.js";
export { type FlagName, type FlagValues, flags, type RunConfig, type RunMode } from "./flags.js";
export { type PassThrough, type PassThroughValue, passedWords } from "./pass-through.js";
export { type PathProbe, withoutSlice } from "./problems.js";
export { type ConfigInput, type Explained, flagListing, type Resolved, resolveConfig } from "./resolve.js";
export type { Origin } from "./sources.js";
export { suggestions } from "./suggest.js";
