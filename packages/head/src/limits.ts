/** Every bound and period of the head, in one place. Times are milliseconds. */
export const headLimits = {
  /** A daemon says it lives this often. */
  heartbeatMs: 2_000,
  /** Silent this long: nothing new is placed there. */
  nodeSuspectMs: 5_000,
  /** Silent this long: what ran there is placed again. */
  nodeSilenceMsMax: 15_000,
  /** After a restart of the head nobody is LOST before this: all daemons need time to find it. */
  restartGraceMs: 30_000,
  /** From this many nodes on, half of them silent at once is taken for a fault of the network: nobody is LOST. */
  evictionBrakeNodesMin: 4,
  tickMs: 500,
  /** Ticks further apart than this: the head itself did not run, and silence in that time is not counted. */
  headAwayMs: 2_500,
  /** An interactive driver whose stream broke is waited for this long. */
  clientGraceMs: 120_000,
  /** A prepared reservation lapses on the node after this; the head gives the two-phase commit up before. */
  reservationTtlMs: 30_000,
  reservationReplyMs: 20_000,
  prepareRetryFirstMs: 100,
  prepareRetryMsMax: 1_000,
  restartFirstMs: 50,
  restartFactor: 1.5,
  restartMsMax: 30_000,
  actorGraceMs: 5_000,
  /** What a driver gets to end by itself at a stop: it aborts its work, closes its files and ends its actors. */
  jobStopGraceMs: 10_000,
  /** Kept records of what has ended; the oldest go first. */
  deadActorsMax: 10_000,
  removedGroupsMax: 1_000,
  endedJobsMax: 10_000,
  goneNodesMax: 1_000,
  actorsMax: 100_000,
  kvKeyBytesMax: 1_024,
  kvValueBytesMax: 1_048_576,
  kvEntriesMax: 100_000,
  entrypointBytesMax: 65_536,
  metadataEntriesMax: 1_000,
  sessionsMax: 10_000,
} as const;

/** Version of the control protocol, in every hello. */
export const controlProtocol = 1;
