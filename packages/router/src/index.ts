export { Dispatcher, type DispatcherCounts } from "./dispatcher.js";
export { HttpEngine, type HttpEngineOptions, type KnownVersions } from "./engine-client.js";
export { type ParsedReply, parseReply } from "./engine-reply.js";
export { Fleet, type Gate, type Health, isAble, type StayEnd, type Worker, workerView } from "./fleet.js";
export { type HttpCall, HttpClient, type HttpReply, refusalText, replyJson } from "./http-client.js";
export { defaultRouterLimits, type RouterLimits } from "./options.js";
export type { CacheAwareOptions } from "./policies/cache-aware.js";
export { httpRouter } from "./router-client.js";
export { socketTransport } from "./socket-transport.js";
export { SseEvents } from "./sse-events.js";
export { type RouterOptions, type RunningRouter, startRouter } from "./start.js";
export {
  type Attempt,
  type AttemptOutcome,
  type ForwardRequest,
  Presence,
  type ReplySink,
  retryableStatuses,
  type Transport,
} from "./transport.js";
