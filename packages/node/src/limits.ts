/** Version of the control plane's messages that this daemon speaks. */
export const controlProtocol = 1;

/** Named bounds of a daemon; nothing here waits or grows without one of them. Time ladder: inner numbers are the smaller. */
export const nodeLimits = {
  /** Heartbeats to the head; the head's welcome may say otherwise. */
  heartbeatMs: 2_000,
  /** How long one try to reach the head may take. */
  connectMsMax: 2_000,
  /** Delays between tries: first and largest. */
  reconnectMsFirst: 100,
  reconnectMsMax: 2_000,
  /** Without a head for this long everything here ends: far beyond a head's restart, so that a run goes on without it. */
  headAbsenceMsMax: 10 * 60_000,
  /** How long hosts live without a daemon. */
  orphanGraceMs: 60_000,
  /** How often a quiet host is asked, and the silence after which its connection counts as broken. */
  hostPingMs: 2_000,
  hostSilenceMsMax: 10_000,
  /** A host without a connection that uses no processor time for this long hangs; a stopped one does at once. */
  hostIdleMsMax: 30_000,
  /** How often a host without a connection is looked at. */
  hostLookMs: 1_000,
  /** A new host's start, to its registration. */
  hostStartMsMax: 60_000,
  /** How long a rejoining daemon waits for hosts of its earlier life before it says what it has. */
  adoptionMsMax: 3_000,
  /** After SIGTERM to what is left of a process, before SIGKILL. */
  termGraceMs: 2_000,
  /** A host that said its construction failed ends by itself within this. */
  failedHostMsMax: 5_000,
  /** Deadline of calls to a host that are answered at once. */
  hostCallMsMax: 10_000,
  /** Unassigned hosts that may die one after another before the pool rests, and for how long. */
  poolDeathsMax: 3,
  poolRestMs: 30_000,
  /** What an orderly stop of the daemon may take by default. */
  stopGraceMs: 10_000,
  /** Beyond its grace: for SIGTERM, SIGKILL and the kernel. What is left then is named in the log. */
  stopMarginMs: 15_000,
  /** Ended actors and jobs kept until their job is forgotten. */
  endedMax: 10_000,
  /** Messages that wait for the head in one batch; a link that is down queues none. */
  batchMessagesMax: 10_000,
  /** nvidia-smi is asked this often at most. */
  gpuReadMs: 10_000,
} as const;
