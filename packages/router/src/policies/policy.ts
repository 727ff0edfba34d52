/** An engine as a policy sees it: one that may take the request. */
export interface Candidate {
  readonly id: string;
  readonly url: string;
  readonly inFlight: number;
}

/** What a request tells about where it should go. Only what the policy asks for is looked up. */
export interface RouteHint {
  /** `X-SMG-Routing-Key`: requests of one key belong together. */
  readonly key: string | null;
  /** The prompt's bytes as they stand in the body, cut to a bound. */
  readonly prompt: Uint8Array | null;
}

export const noHint: RouteHint = { key: null, prompt: null };

/**
 * How one of several able engines is chosen. The state is the policy's own; time and I/O have no part in it.
 * L1: the choice is one of `able`. L2: what is kept is bounded.
 */
export interface Policy {
  /** What it wants to know of a request. */
  readonly wants: "nothing" | "key" | "prompt";
  /** @param able never empty; in order of registration. */
  readonly choose: <C extends Candidate>(able: readonly C[], hint: RouteHint) => C;
  /** What the engine had cached is gone: it left, restarted or got other weights. */
  readonly forget: (id: string) => void;
}

/** The `i`th of a list that has it. */
export function at<T>(list: readonly T[], i: number): T {
  const item = list[i];
  if (item === undefined) throw new RangeError(`no ${i}th of ${list.length} engines`);
  return item;
}
