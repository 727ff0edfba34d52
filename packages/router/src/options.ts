import type { BackoffPolicy } from "@slime/core";

/** Every bound of the router. */
export interface RouterLimits {
  /** Requests that may wait because no engine may take them; one more is answered 503. */
  readonly waitingMax: number;
  /** How long a request waits for an engine before it is answered 503. */
  readonly waitMs: number;
  /** Bytes of a request's body, held until it is answered so that it can be sent again; more is answered 413. */
  readonly bodyBytesMax: number;
  /** Tries of one request, the first included, and the pause between them when no untried engine is left. */
  readonly retry: BackoffPolicy;
  readonly probeEveryMs: number;
  /** An engine that does not answer a probe for so long is out. SGLang's own probe takes a second at best. */
  readonly probeTimeoutMs: number;
  readonly connectTimeoutMs: number;
  /** Breaks before the first byte in a row after which an engine is out; a refused connection or a missed probe is enough by itself. */
  readonly brokenMax: number;
  /** How long a fence waits for requests that are on their way to the engine. */
  readonly fenceMs: number;
  readonly workersMax: number;
  readonly closeMs: number;
}

export const defaultRouterLimits: RouterLimits = {
  waitingMax: 8_192,
  waitMs: 60_000,
  bodyBytesMax: 64 << 20,
  retry: { firstMs: 50, factor: 1.5, delayMsMax: 2_000, jitter: 0.2, triesMax: 5 },
  probeEveryMs: 2_000,
  probeTimeoutMs: 5_000,
  connectTimeoutMs: 2_000,
  brokenMax: 2,
  fenceMs: 5_000,
  workersMax: 1_024,
  closeMs: 2_000,
};
