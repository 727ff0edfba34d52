/**
 * The one table of failures: what each carries, whether a retry can help, its HTTP status and its exit code.
 * Invariants: E1 every code here has facts; E2 a code's details are plain data, so they cross every wire;
 * E3 whether to retry is read here and nowhere else; E4 an unknown code from a newer peer survives as it came.
 */
export interface DeathRecord {
  /** Why the process ended, in Ray's words (ray.md §1.17) and a few of our own. */
  readonly reason:
    | "WORKER_DIED"
    | "NODE_DIED"
    | "KILLED"
    | "JOB_ENDED"
    | "CREATION_FAILED"
    | "RESTARTS_EXHAUSTED"
    | "PLACEMENT_REMOVED"
    | "ORPHANED";
  readonly message: string;
  readonly pid: number | null;
  readonly exitCode: number | null;
  readonly signal: string | null;
  /** True when the kernel's out-of-memory killer left evidence. */
  readonly oom: boolean;
  /** The last lines of stderr, newest last; at most 20. */
  readonly stderrTail: readonly string[];
  readonly nodeId: string | null;
  /** Milliseconds since 1970, for display. */
  readonly atMs: number;
}

/** What each failure carries. A new code here makes the compiler ask for its facts. */
export interface ErrorDetails {
  /** Bad input, all problems at once; each issue names the place and the fix. */
  "config.invalid": { readonly issues: readonly string[] };
  /** A usage error of the command line. */
  usage: { readonly issues: readonly string[] };
  "data.invalid": { readonly file: string; readonly issues: readonly string[] };
  "file.missing": { readonly path: string; readonly wanted: string };
  "disk.full": { readonly path: string; readonly needed: number | null };
  "state.damaged": { readonly path: string; readonly where: string };
  "state.locked": { readonly path: string; readonly pid: number | null };
  "port.taken": { readonly port: number; readonly pid: number | null };
  not_found: { readonly kind: string; readonly id: string };
  conflict: { readonly kind: string; readonly id: string };
  /** An address beyond loopback was asked for before TLS and tokens exist. */
  "address.refused": { readonly address: string };

  "head.unavailable": { readonly address: string };
  "head.stale": { readonly epoch: number; readonly current: number };
  "peer.incompatible": { readonly ours: string; readonly theirs: string };
  "node.lost": { readonly nodeId: string; readonly silentMs: number };

  "placement.infeasible": { readonly wanted: string; readonly reasons: readonly string[] };
  "placement.waiting": { readonly wanted: string; readonly reasons: readonly string[]; readonly waitedMs: number };
  "placement.removed": { readonly placementGroupId: string };

  /** The actor may come back: its connection broke or it restarts. */
  "actor.unavailable": { readonly actorId: string; readonly incarnation: number; readonly reason: string };
  /** Final: this actor will not come back. */
  "actor.died": { readonly actorId: string; readonly className: string; readonly death: DeathRecord };
  "actor.creation": { readonly actorId: string; readonly className: string };
  "actor.stale": { readonly actorId: string; readonly incarnation: number; readonly current: number };
  "actor.no_method": { readonly actorId: string; readonly method: string; readonly has: readonly string[] };
  "actor.busy": { readonly actorId: string; readonly pending: number; readonly pendingMax: number };
  "gang.rank_failed": { readonly op: string; readonly failedRanks: readonly number[] };

  "call.deadline": { readonly what: string; readonly timeoutMs: number };
  "call.cancelled": { readonly what: string };
  /** User code threw something that is not a SlimeError; its own name, message and stack are kept. */
  "call.failed": { readonly name: string; readonly where: string };

  "codec.refused": { readonly where: string; readonly reason: string };
  "wire.limit": { readonly what: string; readonly value: number; readonly max: number };
  "wire.broken": { readonly peer: string; readonly reason: string };
  "object.lost": { readonly objectId: string; readonly reason: string };
  "object_store.full": { readonly needed: number; readonly free: number; readonly capacity: number };

  "process.exited": { readonly what: string; readonly exitCode: number | null; readonly signal: string | null };
  "process.start": { readonly what: string };
  "job.failed": { readonly jobId: string; readonly exitCode: number | null };

  "engine.unavailable": { readonly engine: string; readonly reason: string };
  "engine.refused": { readonly engine: string; readonly status: number; readonly reason: string };
  "engine.state": { readonly engine: string; readonly state: string; readonly wanted: string };
  "weights.mismatch": { readonly engine: string; readonly version: number; readonly reason: string };
  "weights.push": { readonly version: number; readonly phase: string; readonly engines: readonly string[] };
  "trainer.numeric": { readonly what: string; readonly step: number };
  "reward.failed": { readonly instanceId: string; readonly reason: string };
  "hook.failed": { readonly hook: string; readonly path: string };
  "checkpoint.invalid": { readonly path: string; readonly reason: string };
  "journal.unreadable": { readonly path: string; readonly found: number; readonly known: number };
  "audit.failed": { readonly issues: readonly string[] };
  stalled: { readonly what: string; readonly silentMs: number };
  unsupported: { readonly what: string; readonly why: string };
}

export type ErrorCode = keyof ErrorDetails;

export interface ErrorFacts {
  /** A later try, unchanged, may succeed. */
  readonly retryable: boolean;
  readonly httpStatus: number;
  /** Exit codes follow sysexits: 2 usage, 65 data, 66 no input, 69 unavailable, 70 bug, 73 cannot create, 74 I/O, 75 try again, 78 configuration. */
  readonly exitCode: number;
}

const facts = (retryable: boolean, httpStatus: number, exitCode: number): ErrorFacts => ({ retryable, httpStatus, exitCode });

export const errorFacts: { readonly [C in ErrorCode]: ErrorFacts } = {
  "config.invalid": facts(false, 400, 78),
  usage: facts(false, 400, 2),
  "data.invalid": facts(false, 400, 65),
  "file.missing": facts(false, 404, 66),
  "disk.full": facts(true, 507, 74),
  "state.damaged": facts(false, 500, 74),
  "state.locked": facts(false, 409, 69),
  "port.taken": facts(false, 409, 69),
  not_found: facts(false, 404, 66),
  conflict: facts(false, 409, 73),
  "address.refused": facts(false, 400, 78),
  "head.unavailable": facts(true, 503, 69),
  "head.stale": facts(true, 409, 75),
  "peer.incompatible": facts(false, 426, 78),
  "node.lost": facts(true, 503, 75),
  "placement.infeasible": facts(false, 422, 78),
  "placement.waiting": facts(true, 503, 75),
  "placement.removed": facts(false, 410, 70),
  "actor.unavailable": facts(true, 503, 75),
  "actor.died": facts(false, 410, 70),
  "actor.creation": facts(false, 500, 70),
  "actor.stale": facts(true, 409, 75),
  "actor.no_method": facts(false, 404, 70),
  "actor.busy": facts(true, 429, 75),
  "gang.rank_failed": facts(false, 500, 70),
  "call.deadline": facts(true, 504, 75),
  "call.cancelled": facts(false, 499, 130),
  "call.failed": facts(false, 500, 70),
  "codec.refused": facts(false, 400, 65),
  "wire.limit": facts(false, 413, 65),
  "wire.broken": facts(true, 502, 75),
  "object.lost": facts(false, 410, 70),
  "object_store.full": facts(true, 507, 75),
  "process.exited": facts(true, 500, 70),
  "process.start": facts(false, 500, 70),
  "job.failed": facts(false, 500, 1),
  "engine.unavailable": facts(true, 503, 75),
  "engine.refused": facts(false, 502, 70),
  "engine.state": facts(false, 409, 70),
  "weights.mismatch": facts(false, 500, 70),
  "weights.push": facts(true, 500, 75),
  "trainer.numeric": facts(false, 500, 70),
  "reward.failed": facts(false, 500, 70),
  "hook.failed": facts(false, 500, 70),
  "checkpoint.invalid": facts(false, 422, 65),
  "journal.unreadable": facts(false, 422, 65),
  "audit.failed": facts(false, 500, 1),
  stalled: facts(true, 504, 75),
  unsupported: facts(false, 501, 78),
};

const marker = Symbol.for("slime.error");

/** A failure: a code, typed details, a cause. The code leads the message, so that a log line is enough to find it here. */
export class SlimeError<C extends ErrorCode = ErrorCode> extends Error {
  override readonly name = "SlimeError";
  readonly [marker] = true;
  readonly code: C;
  readonly details: ErrorDetails[C];

  constructor(code: C, message: string, details: ErrorDetails[C], options?: ErrorOptions) {
    super(`[${code}] ${message}`, options);
    this.code = code;
    this.details = details;
  }

  /** True for a SlimeError of this code, also when another copy of the package made it. */
  static is<C extends ErrorCode>(error: unknown, code: C): error is SlimeError<C> {
    return error instanceof Error && marker in error && "code" in error && error.code === code;
  }

  /** True for a SlimeError of any code, known or not. */
  static isAny(error: unknown): error is SlimeError {
    return error instanceof Error && marker in error;
  }
}

/** Facts of any thrown value. What we do not know is a bug: not retried, exit 70. */
export function factsOf(error: unknown): ErrorFacts {
  const code = SlimeError.isAny(error) ? (error.code as string) : "";
  return Object.hasOwn(errorFacts, code) ? errorFacts[code as ErrorCode] : facts(false, 500, 70);
}

/** What went wrong and why, on one line, without the outermost code: for records whose code has a field of its own. */
export function reasonOf(error: unknown): string {
  const [first = "", ...causes] = causeChain(error);
  const prefix = SlimeError.isAny(error) ? `[${error.code}] ` : "";
  return [first.startsWith(prefix) ? first.slice(prefix.length) : first, ...causes].join(": ");
}

/** The messages of an error and its causes, outermost first, each once. */
export function causeChain(error: unknown): readonly string[] {
  const lines: string[] = [];
  for (let at: unknown = error, depth = 0; at !== undefined && at !== null && depth < 8; depth++) {
    const message = at instanceof Error ? at.message || at.name : String(at);
    if (lines.at(-1) !== message) lines.push(message);
    at = at instanceof Error ? at.cause : undefined;
  }
  return lines;
}
