export { abortable, deadline, type Deadline } from "./abort.js";
export { backoffDelayMs, defaultBackoff, type BackoffPolicy } from "./backoff.js";
export { sleep, systemClock, type Clock, type Timer } from "./clock.js";
export { causeChain, errorFacts, factsOf, SlimeError, type DeathRecord, type ErrorCode, type ErrorDetails, type ErrorFacts } from "./errors.js";
export { ActorId, ClusterId, JobId, NodeId, ObjectId, OpId, PlacementGroupId, ProcessId, TraceId, type HeadEpoch, type IdKind, type Incarnation } from "./ids.js";
export { invariant, InvariantError, unreachable } from "./invariant.js";
export { silentLogger, type LogFields, type Logger } from "./logger.js";
export { seededRandom, systemRandom, type Random } from "./random.js";
