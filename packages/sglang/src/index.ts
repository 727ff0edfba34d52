export { type Feature, probeCapabilities, requireFeature, type ServerCapabilities } from "./capabilities.js";
export { type EnginePhase, type EngineState, type MemoryTag, memoryTags, phaseOf } from "./engine-state.js";
export { discoverExternal, type ExternalEngine } from "./external.js";
export { defaultHealthLimits, type HealthEvent, HealthJudge, type HealthLimits, type HealthVerdict } from "./health-judge.js";
export { type ProbeOutcome, probe } from "./http-probe.js";
export {
  type AdapterLimits,
  defaultAdapterLimits,
  HttpServerEngineAdapter,
  type HttpServerEngineAdapterOptions,
  type UpdateGroup,
  type WeightsCheck,
} from "./http-server-engine-adapter.js";
export { type RouterRequest, routerArgs } from "./router-args.js";
export { type RunningSglangRouter, type SglangRouterOptions, type StartSglangRouterParts, startSglangRouter } from "./router-process.js";
export {
  type ArgField,
  type ArgTable,
  argTableOf,
  routerArgFields,
  routerArgTable,
  serverArgFields,
  serverArgTable,
} from "./server-arg-fields.js";
export { distInitPorts, type ServerRequest, type ServerRole, type SpecOptions, serverSpec } from "./server-args.js";
export {
  commandLineOf,
  type ServerArgs,
  type ServerArgValue,
  type ServerCommand,
  type ServerSpec,
  serverCommand,
} from "./server-command.js";
export { type SglangRouterParts, sglangRouter } from "./sglang-router.js";
export { type RunningServer, type StartServerParts, startServer, startSilenceMsDefault } from "./start-server.js";
export { type HealthWatch, type WatchHealthParts, watchHealth } from "./watch-health.js";
export { startWeightHelper, type WeightHelperOptions } from "./weight-helper.js";
export type { HelperEnd, HelperPush, WeightHelper } from "./weight-helper-port.js";
export { type WeightBucket, writeModelDirectory } from "./weight-source.js";
