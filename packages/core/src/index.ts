export { abortable, type Deadline, deadline } from "./abort.js";
export { type BackoffPolicy, backoffDelayMs, defaultBackoff } from "./backoff.js";
export { type Clock, sleep, systemClock, type Timer } from "./clock.js";
export { compiledUrl } from "./compiled.js";
export {
  causeChain,
  type DeathRecord,
  type ErrorCode,
  type ErrorDetails,
  type ErrorFacts,
  errorFacts,
  factsOf,
  reasonOf,
  SlimeError,
} from "./errors.js";
export {
  ActorId,
  ClusterId,
  type HeadEpoch,
  type IdKind,
  type Incarnation,
  JobId,
  NodeId,
  ObjectId,
  OpId,
  PlacementGroupId,
  ProcessId,
  TraceId,
} from "./ids.js";
export { InvariantError, invariant, unreachable } from "./invariant.js";
export { type LogFields, type Logger, silentLogger } from "./logger.js";
export { type Random, seededRandom, systemRandom } from "./random.js";
