import type { Random } from "./random.js";

/** How often and how fast to try again. Defaults follow reliability.md §1.1: 50 ms × 1.5ⁿ, cap 30 s, ±20 % jitter, 5 tries. */
export interface BackoffPolicy {
  readonly firstMs: number;
  readonly factor: number;
  readonly delayMsMax: number;
  /** Fraction of the delay by which chance moves it, either way. */
  readonly jitter: number;
  /** Tries in all, the first one included. */
  readonly triesMax: number;
}

export const defaultBackoff: BackoffPolicy = { firstMs: 50, factor: 1.5, delayMsMax: 30_000, jitter: 0.2, triesMax: 5 };

/** Delay in ms before try number `attempt` (2 is the first retry), or null when the tries are used up. */
export function backoffDelayMs(policy: BackoffPolicy, attempt: number, random: Random): number | null {
  if (attempt > policy.triesMax) return null;
  const base = Math.min(policy.delayMsMax, policy.firstMs * policy.factor ** (attempt - 2));
  return base * (1 + policy.jitter * (2 * random.unit() - 1));
}
