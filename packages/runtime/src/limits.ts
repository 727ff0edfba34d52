/** Named bounds of the runtime; nothing here waits or grows without one of them. */
export const runtimeLimits = {
  /** A top-level argument or result above this goes through the object store (ray.md §1.3). */
  inlineBytesMax: 100 * 1024,
  /** Calls of one process to one actor that may wait or run at once; more are `actor.busy`. */
  pendingCallsMax: 10_000,
  /** Deadline of a call that names none; `null` in the options waits as long as the actor lives. */
  callTimeoutMsDefault: 10 * 60_000,
  /** How long a call that lost its connection waits for the head to say how the actor died, before it is only "unavailable". */
  verdictMsMax: 3_000,
  /** Until an actor's host answers a connection: it may compute without yielding; one that died closes at once. */
  helloTimeoutMs: 60_000,
  /** A `get` that has waited this long says whom it waits for; every wait says it again after each such span. */
  waitReportMs: 30_000,
  /** Whoever waits for an actor to be there, or for a placement group, says so after this long: that should have been quick. */
  waitReportFirstMs: 5_000,
  /** Deadline of a request to the head, reconnects included. */
  controlTimeoutMs: 30_000,
  /** What loading a module and constructing may take. */
  creationTimeoutMs: 120_000,
  /** Requests to the head that may be outstanding. */
  controlRequestsMax: 65_536,
  /** Calls of a host's reserved group (`health`, `abort`, `slime.*`) at once. */
  urgentRunningMax: 64,
  /** Results a host keeps by idempotency key, and their estimated bytes. */
  recordedResultsMax: 4_096,
  recordedBytesMax: 256 * 1024 * 1024,
  /** What `onShutdown` may take when nobody gave a grace. */
  shutdownGraceMs: 10_000,
  /** Nesting of values that are looked through for references. */
  valueDepthMax: 100,
} as const;
